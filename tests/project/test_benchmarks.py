"""The benchmarks go on working: the engine's statements in pgbench's form, the loop of claims and
acks, and the arithmetic."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from benchmarks.bare import bare, last_select, script, variables
from benchmarks.jobs import fill
from benchmarks.loop import Loop
from benchmarks.peers.catalog import OURSELVES, PEERS
from benchmarks.peers.install import PROGRAMS
from benchmarks.run import Run, percentile, ratio
from benchmarks.server import SETTINGS, Postgres
from tests.support.factories import value


@pytest.fixture(scope="module")
async def postgres() -> AsyncIterator[Postgres]:
    server = Postgres()
    try:
        await server.start()
        yield server
    finally:
        server.stop()


async def test_the_server_of_a_run_is_durable(postgres: Postgres) -> None:
    assert {
        name: postgres.settings[name]
        for name in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum")
    } == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "autovacuum": "on",
    }
    assert postgres.settings.keys() >= SETTINGS.keys()


def test_a_statement_becomes_pgbench_s_without_its_comments() -> None:
    assert variables("-- of %(a)s\nSELECT %(a)s::int, '50 %%' -- %(b)s") == "SELECT :a::int, '50 %'"


def test_the_last_select_of_a_statement_is_the_one_outside_parentheses() -> None:
    statement = "WITH a AS (SELECT 1), b AS (SELECT 2 FROM (SELECT 3)) SELECT 4"
    assert statement[last_select(statement) :] == "SELECT 4"


def test_nothing_of_psycopg_s_form_is_left_for_pgbench() -> None:
    assert "%(" not in script()


async def test_the_engine_s_claim_and_ack_complete_every_job_under_pgbench(
    postgres: Postgres,
) -> None:
    """The benchmark fails by itself when a job is left over."""
    sample = await bare(postgres, 4_000, 2)
    assert sample["jobs"] == 4_000
    assert sample["per_second"] > 0


async def test_the_loop_takes_what_it_stores(postgres: Postgres) -> None:
    async with (
        postgres.database() as url,
        await AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        await fill(connection, 1_000, settle=False)
        async with Loop(url, batch=100) as loop:
            taken = [await loop.turn(refill=True) for _ in range(10)]
        assert (
            await value(connection, "SELECT count(*) FROM job_logs WHERE status = 'completed'")
            == sum(taken)
            > 800
        )
        assert len(loop.claims.times) == len(loop.counts) == 10


async def test_sides_take_turns(postgres: Postgres, tmp_path: Path) -> None:
    order = []

    def side(name: str) -> Any:
        async def measured() -> dict[str, int]:
            order.append(name)
            return {"per_second": len(order)}

        return measured

    samples = await Run(postgres, tmp_path, rounds=3).take_turns(
        "test", {name: side(name) for name in "abc"}
    )
    assert "".join(order) == "abcbcacab"
    assert [sample["round"] for sample in samples["a"]] == [1, 2, 3]


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    def rounds(*rates: float) -> list[dict[str, float]]:
        return [{"round": number, "per_second": rate} for number, rate in enumerate(rates)]

    assert ratio(rounds(10, 1, 30), rounds(10, 2, 15)) == 1.0


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 201)]
    assert [percentile(values, percent) for percent in (50, 99, 100)] == [100, 198, 200]


def test_every_peer_has_a_program_and_says_what_it_keeps() -> None:
    assert len(PEERS) == 10
    for peer in PEERS:
        assert (PROGRAMS / peer.program).is_file()
        assert peer.keeps
        assert peer.settings
        assert peer.packages or peer is OURSELVES
