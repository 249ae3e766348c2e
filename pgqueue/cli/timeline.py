"""A job's history as a list of moments. Pure: from what the row holds to sentences."""

from datetime import datetime
from typing import Any

from pgqueue.job import JobView, Status
from pgqueue.masking import mask

Moment = tuple[datetime, str]


def timeline(view: JobView) -> list[Moment]:
    """What happened, oldest first, and what comes next. Only the last 20 failures and replays are
    kept in a row."""
    moments: list[Moment] = [
        (view.created_at, f"enqueued into {view.queue}, priority {view.priority}")
    ]
    moments += [_entry(entry) for entry in view.history or []]
    if view.started_at is not None and view.attempt_count > 0:
        moments.append(
            (
                view.started_at,
                (
                    f"attempt {view.attempt_count}/{view.max_attempts} claimed by "
                    f"{view.locked_by or '?'}"
                ),
            )
        )
    if view.processed_at is not None:
        moments.append((view.processed_at, _end(view)))
    moments.sort(key=lambda one: one[0])
    if view.status in (Status.ENQUEUED, Status.FAILED):
        moments.append((view.run_after, "due" if view.status is Status.ENQUEUED else "due again"))
    return moments


def _end(view: JobView) -> str:
    match view.status:
        case Status.DLQ:
            return "moved to the dead-letter queue"
        case status:
            return str(status)


def _entry(entry: dict[str, Any]) -> Moment:
    at = datetime.fromisoformat(entry["at"])
    match entry.get("event"):
        case None:
            return (
                at,
                (
                    f"attempt {entry.get('attempt')} failed on {entry.get('worker')}: "
                    f"{mask(str(entry.get('error')))}"
                ),
            )
        case "replayed":
            changed = ", with another payload" if "payload" in entry else ""
            return at, f"replayed (was {entry.get('was')}){changed}"
        case "no handler":
            return (
                at,
                (
                    f"put back {entry.get('times')} times since: {entry.get('worker')} had no "
                    "handler for its type"
                ),
            )
    rest = ", ".join(f"{key} {value}" for key, value in entry.items() if key not in ("at", "event"))
    return at, mask(f"{entry['event']}: {rest}" if rest else str(entry["event"]))
