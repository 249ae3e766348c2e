"""The limit: what Postgres does with the very statements of the engine and no worker around them,
by pgbench.

The statements are read from sql/queries and turned into pgbench's form: parameters become
variables, and the claim's last SELECT is folded into one row, for pgbench keeps no more. So it
hands over ids and leases and no payload, which makes the limit higher.
"""

import asyncio
import os
import re
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict

from benchmarks.jobs import fill, span
from benchmarks.loop import BATCH, first_claim
from benchmarks.server import Postgres, environment
from pgqueue.database.worker_connection import WorkerConnection, load
from pgqueue.settings import Settings
from pgqueue.worker.lanes import PRIORITIES

LANES = len(PRIORITIES)
CLIENTS = (1, 2, 4)

FOLDED = """
SELECT array_agg(id ORDER BY id) FILTER (WHERE job_id IS NOT NULL) AS ids,
       array_agg(lease ORDER BY id) FILTER (WHERE job_id IS NOT NULL) AS leases,
       array_agg(NULL::text) FILTER (WHERE job_id IS NOT NULL) AS receipts,
       array_fill(max(run_after) FILTER (WHERE job_id IS NULL AND id IS NOT NULL), ARRAY[{lanes}])
         AS lane_run_afters,
       array_fill(max(id) FILTER (WHERE job_id IS NULL AND id IS NOT NULL), ARRAY[{lanes}])
         AS lane_ids
  FROM answer \\gset"""
"""One lane gives jobs here; the place of its last is where the next claim begins, as a worker has
it."""


def variables(statement: str) -> str:
    """%(name)s becomes :name, and %% a per cent sign; no comment stays, for pgbench would look for
    variables in it."""
    text = re.sub(r"--[^\n]*", "", statement)
    return re.sub(r"%\((\w+)\)s", r":\1", text).replace("%%", "%").strip()


def last_select(statement: str) -> int:
    """Where the SELECT begins that is not inside parentheses."""
    depth = 0
    for match in re.finditer(r"[()]|\bSELECT\b", statement):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if match[0] == "SELECT" and depth == 0:
            return match.start()
    raise ValueError("no SELECT outside parentheses")


def script() -> str:
    """One transaction of pgbench: a claim and its ack."""
    claim, ack = variables(load("claim_jobs")), variables(load("ack_jobs"))
    place = last_select(claim)
    head, answer = claim[:place].rstrip(), claim[place:]
    return f"{head}, answer AS (\n{answer}\n){FOLDED.format(lanes=LANES)}\n{ack};\n"


def written(value: Any) -> str:
    """A parameter as pgbench takes it."""
    if isinstance(value, list | tuple):
        return "{" + ",".join(map(written, value)) + "}"
    return f"{value.total_seconds():g} s" if isinstance(value, timedelta) else str(value)


async def session(url: str) -> str:
    """What the claims' link sets for its connection, as PGOPTIONS; the acks' differs in sorting
    alone, and sorts nothing."""
    link = WorkerConnection(
        Settings(database_url=url).conninfo, Settings(database_url=url), name="bench", sorting=False
    )
    try:
        connection = await link.connect()
        cursor = await connection.execute(
            "SELECT name, setting FROM pg_settings WHERE source = 'session'"
        )
        return " ".join(
            f"-c {name}={value.replace(' ', chr(92) + ' ')}"
            for name, value in await cursor.fetchall()
        )
    finally:
        await link.close()


async def bare(postgres: Postgres, jobs: int, clients: int) -> dict[str, Any]:
    """One pgbench run over `jobs` rows: jobs per second, from the table and as pgbench says."""
    batches = jobs // (BATCH * clients)
    count = batches * BATCH * clients
    async with (
        postgres.database() as url,
        await AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        await fill(connection, count)
        cpu = postgres.cpu_seconds()
        said = await _pgbench(postgres, url, clients, batches)
        cpu = postgres.cpu_seconds() - cpu
        seconds = await span(connection, count)
    tps = re.search(r"tps = ([\d.]+)", said)
    return {
        "jobs": count,
        "seconds": seconds,
        "per_second": count / seconds,
        "pgbench_per_second": float(tps[1]) * BATCH if tps else None,
        "server_cpu_us": 1e6 * cpu / count,
    }


async def _pgbench(postgres: Postgres, url: str, clients: int, transactions: int) -> str:
    where = conninfo_to_dict(url)
    names = {
        "PGHOST": "host",
        "PGPORT": "port",
        "PGUSER": "user",
        "PGPASSWORD": "password",
        "PGDATABASE": "dbname",
    }
    libpq = {name: str(where[key]) for name, key in names.items()} | {
        "PGOPTIONS": await session(url)
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "claim_ack.sql"
        file.write_text(script())
        given = [
            f"--define={name}={written(value)}" for name, value in first_claim(url, BATCH).items()
        ]
        process = await asyncio.create_subprocess_exec(
            str(postgres.binaries / "pgbench"), "--no-vacuum", "--protocol=prepared",
            f"--client={clients}",
            f"--jobs={min(clients, os.cpu_count() or 1)}", f"--transactions={transactions}",
            f"--file={file}", *given,
            env=environment(url, libpq), stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
    text = output.decode(errors="replace")
    if process.returncode != 0 or "aborted" in text:
        raise RuntimeError(f"pgbench failed:\n{text[-3000:]}")
    return text
