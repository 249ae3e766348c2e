"""R2, the other way round: Postgres stands still for a moment in the middle of a statement."""

import os
import signal

import pytest

from tests.chaos.fleet import a_fleet
from tests.chaos.site import Site
from tests.chaos.size import span
from tests.support.scene import until

SLACK = 10
"""Seconds that a busy machine may add to any promise."""

STALL = 2.0

SWEEPING = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgqueue sweeps'"


@pytest.mark.fault("R2")
async def test_a_sweep_that_was_held_up_once_is_followed_by_another_soon(site: Site) -> None:
    async with a_fleet(site, 1, PGQUEUE_LEASE="1s"):
        backend = site.value(SWEEPING)
        os.kill(backend, signal.SIGSTOP)
        try:
            await span(STALL)
        finally:
            os.kill(backend, signal.SIGCONT)
        thawed = site.value("SELECT clock_timestamp()")
        await until(
            lambda: site.value("SELECT seen_at > %s FROM job_workers", thawed),
            SLACK,
            "a sweep after the stalled one",
        )
        seen = site.value("SELECT seen_at FROM job_workers")
        await until(
            lambda: site.value("SELECT seen_at > %s FROM job_workers", seen), SLACK, "another sweep"
        )
