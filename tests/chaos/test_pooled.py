"""R14: PgBouncer in transaction mode between everything and Postgres, while workers are killed."""

import random
import re

import pytest

from tests.chaos.conftest import Record
from tests.chaos.counts import count
from tests.chaos.fleet import a_fleet, now
from tests.chaos.load import producing
from tests.chaos.site import ROLES, Login, Site
from tests.chaos.size import many, scale, span
from tests.support.pooler import pooled

LEASE = 2


@pytest.mark.fault("R14")
async def test_jobs_of_killed_workers_behind_a_pooler_start_again_and_none_is_lost(
    site: Site, record: Record
) -> None:
    """Four connections to the server for all processes."""
    login = site.login("pgqueue_worker")
    for statement in re.findall(r"^--   (ALTER ROLE queue_worker SET .*;)$", ROLES, re.MULTILINE):
        site.rows(statement.replace("queue_worker", login.name))
    kills = []
    async with pooled(login.url, site.folder) as url:
        site.everybody = Login(login.name, url)
        environment = {"PGQUEUE_PGBOUNCER": "on", "PGQUEUE_LEASE": f"{LEASE}s"}
        async with (
            a_fleet(site, 3, slots=30, **environment) as fleet,
            producing(site, seconds=(0, 1), rate=20, pgbouncer=True) as load,
        ):
            for _ in range(many(2, 60)):
                await span(random.uniform(scale(0.3, 1), scale(1, 5)))
                kills.append(await fleet.kill(await fleet.victim()))
                await fleet.start(ready=False)
            await load.stop()
            stopped = now()
            await fleet.drained()
            assert fleet.fallen() == []
    ledger = site.ledger()
    counts = count(
        ledger,
        what=(
            "R1 with three workers through PgBouncer in transaction mode; recovery: from the end "
            "of the load to that of the jobs"
        ),
        faults=len(kills),
        in_flight=sum(map(ledger.open_at, kills)),
        stale_refused=fleet.refused(),
        recovery=(ledger.completed_at[-1] - stopped).total_seconds(),
        logins=False,
        repeated_enqueues=load.figures["repeated"],
    )
    record(counts)
    assert counts.figures["ended"].keys() == {"completed"}
