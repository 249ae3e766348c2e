"""R8: many producers with the same ids. R9: many sign-ins of the same users at once, while places
in their limit come free."""

from collections import Counter, defaultdict
from typing import Any

import pytest

from pgqueue import AsyncClient
from pgqueue.errors import DuplicatePayload, RateLimited
from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.crowd import JOB_TYPE, LIMIT, TURN, Order
from tests.chaos.fleet import a_fleet
from tests.chaos.ledger import lines
from tests.chaos.load import Load, start
from tests.chaos.site import Site
from tests.chaos.size import many

HOUR = 3600.0
BLUR = 0.005
"""Seconds that two readings of a clock may differ in."""


async def a_crowd(site: Site, processes: int, deadlines: float, **order: Any) -> None:
    """So many processes, until all are done."""
    (site.folder / "answers").mkdir()
    started = []
    for number in range(processes):
        files = {
            "accepted": str(site.accepted / f"crowd-{number}"),
            "answers": str(site.folder / "answers" / f"{number}"),
        }
        what = Order(site.login("pgqueue_producer").url, **files, **order)
        started.append(await start("tests.chaos.crowd", site, f"crowd-{number}", what))
    await Load(started).end(deadlines)


@pytest.mark.fault("R8")
async def test_the_same_ids_from_many_producers_are_one_job_each_and_are_counted_once(
    site: Site, record: Record
) -> None:
    processes, callers, ids, times = many(2, 4), many(8, 16), many(60, 1000), many(3, 20)
    async with a_fleet(site, 1) as fleet:
        await a_crowd(site, processes, 3000, callers=callers, ids=ids, times=times)
        async with AsyncClient.open(site.url) as client:
            for number in range(ids):
                with pytest.raises(DuplicatePayload):
                    await client.enqueue(
                        JOB_TYPE,
                        {"other": number},
                        job_id=f"same-{number}",
                        user_id=f"user-{number // LIMIT}",
                    )
            for user in range(ids // LIMIT):
                with pytest.raises(RateLimited):
                    await client.enqueue(JOB_TYPE, {}, user_id=f"user-{user}")
        await fleet.drained()
    answers = Counter(line.split()[0] for line in lines(site.folder / "answers"))
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            f"{processes * callers} producers, the same {ids} ids, {times} times each; each user "
            "has exactly as many as the limit"
        ),
        faults=1,
        in_flight=0,
        rows=len(ledger.statuses),
        effects=sum(ledger.done.values()),
        answers=dict(answers),
    )
    record(counts)
    assert (counts.jobs, counts.figures["rows"], counts.figures["effects"]) == (ids, ids, ids)
    assert answers == {"created": ids, "known": processes * callers * ids * times - ids}


@pytest.mark.fault("R9")
async def test_over_the_edge_of_the_hour_each_user_gets_exactly_the_limit(
    site: Site, record: Record
) -> None:
    users, seconds, processes = many(10, 200), many(3, 60), many(2, 4)
    site.rows(
        """INSERT INTO job_logs (job_id, job_type, user_id, payload, created_at, status,
             processed_at)
           SELECT format('old-%%s-%%s', u, n), %s, format('user-%%s', u), '{}',
                  now() - interval '1 hour' + interval '2 s' + random() * %s * interval '1 s',
                    'completed', now()
             FROM generate_series(0, %s - 1) AS u, generate_series(1, %s) AS n""",
        JOB_TYPE,
        seconds,
        users,
        LIMIT,
    )
    async with a_fleet(site, 1) as fleet:
        await a_crowd(
            site,
            processes,
            600,
            callers=64 // processes,
            users=users,
            seconds=seconds + 4 + users * TURN,
        )
        await fleet.drained()
    created = _created(site)
    answers = [
        (kind, user, float(a), float(b))
        for kind, user, a, b in map(str.split, lines(site.folder / "answers"))
    ]
    refused = [(user, before, after) for kind, user, before, after in answers if kind == "limited"]
    counts = count(
        site.ledger(),
        what=(
            f"sign-ins of {users} users, 64 at once for each, while their ten of the hour before "
            "run out one by one"
        ),
        faults=1,
        in_flight=0,
        answers=dict(Counter(kind for kind, *_ in answers)),
        most_in_any_hour=max(_most_in_any_hour(times) for times in created.values()),
        refused_below_the_limit=sum(
            not _was_full(created[user], before, after) for user, before, after in refused
        ),
    )
    record(counts)
    assert counts.figures["most_in_any_hour"] == LIMIT
    assert counts.figures["refused_below_the_limit"] == 0
    assert counts.jobs == users * LIMIT, "every place that came free was given away"


def _created(site: Site) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for user, at in site.rows(
        "SELECT user_id, extract(epoch FROM created_at)::float8 FROM job_logs ORDER BY created_at"
    ):
        found[user].append(at)
    return found


def _most_in_any_hour(times: list[float]) -> int:
    return max(sum(end - HOUR < one <= end for one in times) for end in times)


def _was_full(times: list[float], before: float, after: float) -> bool:
    """Whether at some moment between the two the user had no place left."""
    moments = [
        before - BLUR,
        after + BLUR,
        *(one for one in times if before - BLUR <= one <= after + BLUR),
    ]
    return any(sum(moment - HOUR < one <= moment for one in times) >= LIMIT for moment in moments)
