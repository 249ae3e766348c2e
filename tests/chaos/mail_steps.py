"""A worker that sends a mail is killed at every step of it, and another one takes the job over: how
many mails came of it?

    python -m tests.chaos.mail_steps --times 200 --out DIR

writes DIR/doubtful-mail.md and .json. The steps are those of `MEANING`.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psycopg
from pgqueue_service.notifications import notify_of_sign_in, send_custom_email
from pgqueue_service.settings import ServiceSettings

from pgqueue.database.migrations import migrate
from pgqueue.embedded.server import EmbeddedServer
from tests.chaos.mail_kills import STEPS, Kill, Lane
from tests.support.factories import value
from tests.support.scene import published

MODES = ("resend", "hold")

MEANING = {
    "connected": "MAIL FROM was heard",
    "announced": "354 was said; the intent waits for the row, and dies with its worker",
    "announced, survived": (
        "the same, but Postgres carries the statement out after its worker's death"
    ),
    "intended": "the intent is written; the server reads nothing of the message, and drops it",
    "delivered": "the server has the message, and has not said 250",
    "answered": "250 was said; the ack waits for the row, and dies with its worker",
    "answered, survived": (
        "the same, but Postgres carries the statement out after its worker's death"
    ),
    "acked": "the job is completed",
}

PROMISED = {
    "connected": {"resend": (1, "completed"), "hold": (1, "completed")},
    "announced": {"resend": (1, "completed"), "hold": (1, "completed")},
    "announced, survived": {"resend": (1, "completed"), "hold": (0, "dlq")},
    "intended": {"resend": (1, "completed"), "hold": (0, "dlq")},
    "delivered": {"resend": (2, "completed"), "hold": (1, "dlq")},
    "answered": {"resend": (2, "completed"), "hold": (1, "dlq")},
    "answered, survived": {"resend": (1, "completed"), "hold": (1, "completed")},
    "acked": {"resend": (1, "completed"), "hold": (1, "completed")},
}
"""Step -> mode -> mails delivered in the end, and how the job ends."""


def as_promised(kill: Kill) -> bool:
    """Also: two mails are the same mail, and what is in the dead-letter queue says why."""
    promised = PROMISED[kill.step][kill.mode]
    return (
        (kill.delivered, kill.status) == promised
        and kill.message_ids <= 1
        and kill.held == (kill.status == "dlq")
    )


def counted(kills: Iterable[Kill]) -> list[dict[str, Any]]:
    """A row for each step and mode."""
    groups: dict[tuple[str, str], list[Kill]] = {
        (step, mode): [] for step in STEPS for mode in MODES
    }
    for kill in kills:
        groups[kill.step, kill.mode].append(kill)
    return [
        {
            "step": step,
            "mode": mode,
            "kills": len(group),
            "delivered_by_the_killed": sum(kill.before for kill in group),
            "mails": {
                str(number): sum(kill.delivered == number for kill in group) for number in range(3)
            },
            "doubled": sum(kill.delivered > 1 for kill in group),
            "held": sum(kill.held for kill in group),
            "held_though_not_delivered": sum(kill.held and not kill.delivered for kill in group),
            "missing": sum(kill.missing for kill in group),
            "pending": sum(kill.pending for kill in group),
            "ends": dict(sorted(Counter(kill.status for kill in group).items())),
            "not_as_promised": sum(not as_promised(kill) for kill in group),
        }
        for (step, mode), group in groups.items()
        if group
    ]


def written(record: dict[str, Any]) -> str:
    """The record in Markdown."""
    lines = [
        "# Doubtful mail",
        "",
        f"{sum(row['kills'] for row in record['rows'])} kills (SIGKILL) of a worker, at each "
        "step and for each setting of "
        "`PGQUEUE_DOUBTFUL_MAIL`. "
        f"{record['postgres']}, lease {record['lease']}, {record['seconds']} s. Kills that could "
        "not be staged in time, "
        f"and were made again: {record['unstaged']}.",
        "",
        (
            "| killed when | setting | kills | 0 mails | 1 mail | 2 mails | held | held, not "
            "delivered | missing | pending |"
        ),
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in record["rows"]:
        figures = [row["kills"], *row["mails"].values()]
        figures += [
            row[name] for name in ("held", "held_though_not_delivered", "missing", "pending")
        ]
        lines.append(f"| {row['step']} | `{row['mode']}` | {' | '.join(map(str, figures))} |")
    lines += ["", *(summed_up(mode, record["rows"]) for mode in MODES)]
    lines += ["", *(f"- *{step}*: {meaning}" for step, meaning in MEANING.items())]
    return "\n".join(lines) + "\n"


def summed_up(mode: str, rows: Iterable[dict[str, Any]]) -> str:
    names = ("kills", "doubled", "missing", "pending", "held", "held_though_not_delivered")
    kills, doubled, missing, pending, held, in_vain = (
        sum(row[name] for row in rows if row["mode"] == mode) for name in names
    )
    return (
        f"- `{mode}`, all steps: {kills} kills, {missing} mails missing, {doubled} doubled, "
        f"{held} held ({in_vain} of these were "
        f"not delivered), {pending} pending"
    )


class Run:
    """Kills in several lanes at once. The report is written every 50 kills, so that a run that is
    stopped has one too."""

    def __init__(self, out: Path, steps: Sequence[str], times: int, lanes: int) -> None:
        self.out = out
        self.steps = list(steps)
        self.times = times
        self.each = max(1, lanes // len(MODES))
        self.lanes: list[Lane] = []
        self.kills: list[Kill] = []
        self.postgres = ""
        self.began = time.monotonic()

    async def go(self) -> None:
        """On a server of its own, which does not trade safety for speed."""
        with EmbeddedServer() as server:
            url = server.url()
            await migrate(url)
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                await published(connection, ServiceSettings(), notify_of_sign_in, send_custom_email)
                self.postgres = await value(
                    connection, "SELECT 'Postgres ' || split_part(version(), ' ', 2)"
                )
            numbered = [(mode, number) for mode in MODES for number in range(self.each)]
            self.lanes = [
                Lane(f"{mode}-{number}", mode, url, self.out, self.take)
                for mode, number in numbered
            ]
            work = self.steps * self.times
            shares = [work[number :: self.each] for _, number in numbered]
            await asyncio.gather(
                *(lane.run(share) for lane, share in zip(self.lanes, shares, strict=True))
            )
        self.write()

    def take(self, kill: Kill) -> None:
        self.kills.append(kill)
        if not as_promised(kill):
            print(f"not as promised: {kill}", flush=True)
        if len(self.kills) % 50 == 0:
            total = len(self.steps) * self.times * len(MODES)
            print(
                f"{len(self.kills)} of {total} kills, {time.monotonic() - self.began:.0f} s",
                flush=True,
            )
            self.write()

    def record(self) -> dict[str, Any]:
        return {
            "times": self.times,
            "postgres": self.postgres,
            "lease": "1 s",
            "seconds": round(time.monotonic() - self.began),
            "unstaged": sum(lane.unstaged for lane in self.lanes),
            "rows": counted(self.kills),
        }

    def write(self) -> None:
        (self.out / "doubtful-mail.json").write_text(json.dumps(self.record(), indent=2) + "\n")
        (self.out / "doubtful-mail.md").write_text(written(self.record()))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.mail_steps", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--times", type=int, default=200, help="kills at each step, for each setting"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the report and the workers' logs"
    )
    parser.add_argument("--lanes", type=int, default=4, help="workers at once")
    parser.add_argument(
        "--step", action="append", choices=list(STEPS), help="only this one; may be repeated"
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    run = Run(given.out, given.step or list(STEPS), given.times, given.lanes)
    asyncio.run(run.go())
    print(written(run.record()))
    return 0 if all(as_promised(kill) for kill in run.kills) else 1


if __name__ == "__main__":
    raise SystemExit(main())
