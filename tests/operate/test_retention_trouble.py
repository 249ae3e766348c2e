"""Retention where rows cannot be removed, and where the archive cannot be written: the others go,
and no row is lost."""

import asyncio
import json
import multiprocessing
import os
import resource
import signal
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection

from pgqueue.database import archive
from pgqueue.database.archive import append
from pgqueue.database.migrations import migrate
from pgqueue.database.retention import BATCH, prune
from pgqueue.embedded.server import EmbeddedServer
from pgqueue.errors import ArchiveError
from pgqueue.settings import Settings
from pgqueue.worker.pruner import _turn
from tests.conftest import FAST
from tests.operate.test_retention import ended, left
from tests.support.commands import cli_for, process
from tests.support.factories import a_job, sql, value

pytestmark = pytest.mark.postgres(15, 18)

Connection = AsyncConnection[Any]


async def many(connection: Connection, count: int) -> None:
    """j1, j2, ... ended nine days ago, in the order of their ids."""
    await sql(
        connection,
        """INSERT INTO job_logs (id, job_id, job_type, user_id, payload, status, created_at,
             processed_at)
           SELECT job_uuid_at(now() - interval '9 d' + n * interval '1 s'), 'j' || n, 't', 'u',
             '{}', 'completed',
                  now() - interval '9 d', now() - interval '9 d' FROM generate_series(1, %s) n""",
        [count],
    )


REFUSE = """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN IF OLD.job_id IN (''j2'', ''j7'') THEN {} END IF; RETURN OLD; END';
            CREATE TRIGGER refuse BEFORE DELETE ON job_logs FOR EACH ROW
              EXECUTE FUNCTION refuse()"""
REFERENCE = """CREATE TABLE orders (job text REFERENCES job_logs (job_id) {});
               INSERT INTO orders VALUES ('j2'), ('j7')"""
OBSTACLES: dict[str, LiteralString] = {
    "a reference": REFERENCE.format(""),
    "a reference by id": """CREATE TABLE orders (job uuid REFERENCES job_logs);
                            INSERT INTO orders SELECT id FROM job_logs
                             WHERE job_id IN ('j2', 'j7')""",
    "a reference that is checked at the commit": REFERENCE.format("DEFERRABLE INITIALLY DEFERRED"),
    "a reference that may not become null": REFERENCE.format("NOT NULL").replace(
        "job_id)", "job_id) ON DELETE SET NULL"
    ),
    "a trigger that raises": REFUSE.format("RAISE ''not this one'';"),
    "a trigger that raises what looks like a missing right": REFUSE.format(
        "RAISE insufficient_privilege;"
    ),
    "a trigger that returns null": REFUSE.format("RETURN NULL;"),
    "a trigger that is slow": REFUSE.format("RAISE query_canceled;"),
    "a policy": """ALTER TABLE job_logs ENABLE ROW LEVEL SECURITY;
                   CREATE POLICY looking ON job_logs FOR SELECT USING (true);
                   CREATE POLICY changing ON job_logs FOR UPDATE USING (true);
                   CREATE POLICY removing ON job_logs FOR DELETE
                     USING (job_id NOT IN ('j2', 'j7'))""",
}


@pytest.mark.parametrize("archived", [False, True], ids=["", "archived"])
@pytest.mark.parametrize("obstacle", OBSTACLES)
async def test_a_row_that_cannot_be_removed_stays_alone(
    connection: Connection, settings: Settings, tmp_path: Path, obstacle: str, archived: bool
) -> None:
    await many(connection, 12)
    await connection.execute(OBSTACLES[obstacle])
    folder = tmp_path if archived else None
    async with await AsyncConnection.connect(settings.conninfo, autocommit=True) as program:
        done = await prune(program, settings, archive=folder)
        assert (done.jobs, done.kept) == (10, 2)
        assert done.reason
        again = await prune(program, settings, archive=folder)
        assert (again.jobs, again.kept) == (0, 2)
    assert await left(connection) == {"j2", "j7"}
    assert await value(connection, "SELECT count(*) FROM job_tombstones") == 10
    if archived:
        assert sorted(row["job_id"] for row in rows_in(tmp_path)) == sorted(
            f"j{n}" for n in range(1, 13) if n not in (2, 7)
        )


async def test_rows_that_stay_do_not_keep_others_from_their_turn(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than one turn of a worker looks at: the next turn goes on behind them."""
    await many(connection, 2 * BATCH + 50)
    await sql(connection, "CREATE TABLE orders (job text REFERENCES job_logs (job_id))")
    await sql(
        connection, "INSERT INTO orders SELECT 'j' || n FROM generate_series(1, %s) n", [BATCH]
    )
    monkeypatch.setattr("pgqueue.worker.pruner.MAX_PRUNED_ROWS", BATCH)
    async with await AsyncConnection.connect(settings.conninfo, autocommit=True) as lock:
        begin = await _turn(lock, settings)
        assert len(await left(connection)) == 2 * BATCH + 50
        begin = await _turn(lock, settings, begin)
        assert len(await left(connection)) == BATCH + 50
        begin = await _turn(lock, settings, begin)
        assert len(await left(connection)) == BATCH
        assert begin is None, "the end: from the start again"


async def test_a_lock_on_what_refers_to_a_row_is_not_waited_for(
    connection: Connection, settings: Settings
) -> None:
    await many(connection, 40)
    await sql(
        connection, "CREATE TABLE orders (job text REFERENCES job_logs (job_id) ON DELETE CASCADE)"
    )
    await sql(connection, "INSERT INTO orders SELECT 'j' || n FROM generate_series(1, 40) n")
    async with await AsyncConnection.connect(settings.conninfo, autocommit=True) as program:
        async with connection.transaction():
            await sql(connection, "SELECT FROM orders WHERE job = 'j3' FOR UPDATE")
            done = await prune(program, settings)
            assert (done.jobs, done.kept) == (39, 1)
        await many_more(connection)
        async with connection.transaction():
            await sql(connection, "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            done = await prune(program, settings)
            assert done.jobs == 0
        assert (await prune(program, settings)).kept == 0


async def many_more(connection: Connection) -> None:
    """600 more rows that orders do not know, past their time too."""
    await sql(
        connection,
        """INSERT INTO job_logs (id, job_id, job_type, user_id, payload, status, created_at,
             processed_at)
           SELECT job_uuid_at(now() - interval '10 d' + n * interval '1 s'), 'k' || n, 't', 'u',
             '{}', 'completed',
                  now() - interval '10 d', now() - interval '10 d'
                   FROM generate_series(1, 600) n""",
    )


async def test_a_missing_right_is_said_once(connection: Connection, settings: Settings) -> None:
    await many(connection, 3)
    await sql(connection, "REVOKE DELETE ON job_logs FROM pgqueue_worker")
    async with await AsyncConnection.connect(settings.conninfo, autocommit=True) as program:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await prune(program, settings)
    await sql(connection, "GRANT DELETE ON job_logs TO pgqueue_worker")


async def test_the_command_says_which_stay_and_why(
    connection: Connection, database_url: str
) -> None:
    await many(connection, 5)
    await connection.execute(REFERENCE.format("").replace(", ('j7')", "").encode())
    said = await cli_for(database_url)("prune")
    assert said.exit_code == 0
    assert "4 jobs removed" in said.stdout
    assert "1 jobs past their time stay, because they cannot be removed" in said.stdout
    assert 'foreign key constraint "orders_job_fkey"' in said.stdout
    assert json.loads((await cli_for(database_url)("prune", "--json")).stdout)["kept"] == 1


@pytest.mark.parametrize("archived", [False, True], ids=["", "archived"])
async def test_a_damaged_row_does_no_harm_to_others(
    installed: dict[int, Path], postgres_major: int, tmp_path: Path, archived: bool
) -> None:
    """Its payload is lost. Unread, it can be removed; to be archived it would have to be read."""
    if postgres_major not in installed:
        pytest.skip(f"Postgres {postgres_major} is not installed here")
    with EmbeddedServer(FAST, binaries=installed[postgres_major]) as server:
        await migrate(server.url())
        async with await AsyncConnection.connect(server.url(), autocommit=True) as connection:
            await many(connection, 5)
            await a_job(connection, job_id="damaged", status="completed",
                payload={"x": [uuid.uuid4().hex for _ in range(2000)]},
                        created_at=timedelta(days=-9), processed_at=timedelta(days=-9))  # fmt: skip
            toast = await value(
                connection, "SELECT reltoastrelid FROM pg_class WHERE relname = 'job_logs'"
            )
            file = Path(
                await value(connection, "SHOW data_directory"),
                await value(connection, "SELECT pg_relation_filepath(%s)", [toast]),
            )
            await sql(connection, "CHECKPOINT")
        server.restart()
        # Its pages were not read since, so that the server finds on the disk what is there now.
        zero(file)
        async with await AsyncConnection.connect(server.url(), autocommit=True) as connection:
            done = await prune(
                connection,
                Settings(database_url=server.url()),
                archive=tmp_path if archived else None,
            )
            assert (done.jobs, done.kept) == ((5, 1) if archived else (6, 0))


class TestArchive:
    def test_what_was_torn_is_cut_off_before_more_is_written(self, tmp_path: Path) -> None:
        file = tmp_path / "job_logs-2026-11.jsonl"
        for torn in (
            b'{"job_id":"to',
            b"{",
            b'{"job_id":"\xd0',
            b"\0" * 9000,
            b'["no row"]',
            b"x" * 3 * archive.PIECE,
        ):
            file.write_bytes(b'{"job_id":"whole"}\n' + torn)
            append(tmp_path, [("2026-11", b'{"job_id":"next"}')])
            assert [row["job_id"] for row in rows_in(tmp_path)] == ["whole", "next"], torn[:20]
            file.write_bytes(torn)
            append(tmp_path, [("2026-11", b'{"job_id":"next"}')])
            assert [row["job_id"] for row in rows_in(tmp_path)] == ["next"], torn[:20]

    def test_a_whole_line_without_its_end_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "job_logs-2026-11.jsonl").write_bytes(b'{"job_id":"whole"}')
        append(tmp_path, [("2026-11", b'{"job_id":"next"}')])
        assert [row["job_id"] for row in rows_in(tmp_path)] == ["whole", "next"]

    def test_names_are_on_the_disk_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[str] = []
        real = os.fsync

        def fsync(file: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{file}"))
            real(file)

        monkeypatch.setattr("os.fsync", fsync)
        folder = tmp_path / "deep" / "archive"
        append(folder, [("2026-11", b"{}")])
        assert synced == [
            str(tmp_path),
            str(tmp_path / "deep"),
            str(folder / "job_logs-2026-11.jsonl"),
            str(folder),
        ]
        synced.clear()
        append(folder, [("2026-11", b"{}")])
        assert synced == [str(folder / "job_logs-2026-11.jsonl")]

    def test_two_at_once_write_whole_lines(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        runs = [context.Process(target=_write_often, args=(tmp_path, name)) for name in ("a", "b")]
        for run in runs:
            run.start()
        for run in runs:
            run.join(60)
        assert sorted(row["job_id"] for row in rows_in(tmp_path)) == ["a"] * 200 + ["b"] * 200


def _write_often(folder: Path, name: str) -> None:
    for _ in range(20):
        append(
            folder, [("2026-11", json.dumps({"job_id": name, "more": "x" * 100_000}).encode())] * 10
        )


async def test_a_full_disk_loses_no_row_and_is_called_so(
    connection: Connection,
    settings: Settings,
    tmp_path: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(3):
        await ended(connection, f"j{number}", 8 + number / 1000, payload={"text": "x" * 3000})
    written, real = [0], os.write

    def write(file: int, text: Any) -> int:
        # As on a disk with room for so much: a part of the text, and then no more.
        room = 4000 - written[0]
        if room <= 0:
            raise OSError(28, "No space left on device")
        done = real(file, text[:room])
        written[0] += done
        return done

    async with await AsyncConnection.connect(settings.conninfo, autocommit=True) as program:
        with monkeypatch.context() as full:
            full.setattr("pgqueue.database.archive.os.write", write)
            with pytest.raises(
                ArchiveError, match="the archive cannot be written: No space left on device"
            ):
                await prune(program, settings, archive=tmp_path)
        assert len(await left(connection)) == 3
        assert raw(tmp_path) == "", "nothing torn is left where it can be helped"
        await prune(program, settings, archive=tmp_path)
    assert [row["job_id"] for row in rows_in(tmp_path)] == ["j2", "j1", "j0"]


async def test_a_program_that_meets_the_end_of_its_disk(
    connection: Connection, tmp_path: Path, database_url: str
) -> None:
    for number in range(3):
        await ended(connection, f"j{number}", 8 + number / 1000, payload={"text": "x" * 3000})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
        code, _, said = await process("prune", "--archive", str(tmp_path), url=database_url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)
    assert code == 1
    assert "the archive cannot be written: File too large" in said
    assert "cannot reach the database" not in said
    assert len(await left(connection)) == 3
    code, _, _ = await process("prune", "--archive", str(tmp_path), url=database_url)
    assert code == 0
    assert [row["job_id"] for row in rows_in(tmp_path)] == ["j2", "j1", "j0"]


async def test_rows_are_in_the_archive_before_they_are_gone(
    connection: Connection, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at from another connection at the moment when the file has been synced, and a run that
    is killed then."""
    await many(connection, 3)
    seen = 0
    real = os.fsync

    def fsync(file: int) -> None:
        nonlocal seen
        real(file)
        with psycopg.connect(settings.conninfo) as other:
            (seen,) = other.execute("SELECT count(*) FROM job_logs").fetchone() or (0,)
        raise KeyboardInterrupt

    async with await AsyncConnection.connect(settings.conninfo, autocommit=True) as program:
        with monkeypatch.context() as killed:
            killed.setattr("os.fsync", fsync)
            with pytest.raises(KeyboardInterrupt):
                await prune(program, settings, archive=tmp_path)
    assert seen == 3
    assert len(rows_in(tmp_path)) == 3
    async with await AsyncConnection.connect(settings.conninfo, autocommit=True) as program:
        await asyncio.wait_for(prune(program, settings, archive=tmp_path), 20)
    assert await left(connection) == set()


async def test_numbers_are_archived_as_they_are_stored(
    connection: Connection, settings: Settings, tmp_path: Path
) -> None:
    await ended(connection, "a", 8)
    text = (
        '{"big": 123456789012345678901234567890, "one": 1.0, "vast": 1'
        + "0" * 400
        + ', "exact": 0.10000000000000000555}'
    )
    await sql(connection, "UPDATE job_logs SET payload = %s::jsonb", [text])
    async with await AsyncConnection.connect(settings.conninfo, autocommit=True) as program:
        await prune(program, settings, archive=tmp_path)
    assert f'"payload":{text}' in raw(tmp_path)


def raw(folder: Path) -> str:
    (file,) = folder.iterdir()
    return file.read_text()


def zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in sorted(folder.iterdir())
        for line in file.read_text().splitlines()
    ]
