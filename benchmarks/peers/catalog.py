"""Who the peers are: what to install, how each is set, what it keeps, and how to see from outside
that all its jobs have ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import LiteralString


@dataclass(frozen=True)
class Peer:
    name: str
    program: str
    packages: tuple[str, ...]
    """For pip or npm; the first is the one whose version is printed."""
    settings: str
    keeps: str
    unfinished: LiteralString
    """A count that is 0 when every job has ended and is so stored. For Redis: commands whose
    answers are added up."""
    jobs: int = 20_000
    """In a burn-down of full size: more for those that would be done too soon to be timed."""
    environment: Mapping[str, str] = field(default_factory=dict)
    python: tuple[int, int] = (3, 11)
    """The oldest that it runs on."""
    store: str = "postgres"

    @property
    def folder(self) -> str:
        """Of its environment; those with the same first package share one."""
        return self.packages[0].partition("[")[0]

    @property
    def is_node(self) -> bool:
        return self.program.endswith(".cjs")


OURSELVES = Peer(
    "pgqueue",
    "with_pgqueue.py",
    (),
    "--queue default:1000, log level warning",
    "all rows",
    "SELECT count(*) FROM job_logs WHERE processed_at IS NULL",
    jobs=100_000,
)

PEERS = (
    OURSELVES,
    Peer(
        "graphile-worker",
        "with_graphile_worker.cjs",
        ("graphile-worker",),
        (
            "24 jobs at once, pool of 25, localQueue of 500, completeJobBatchDelay 0, as on its "
            "page on performance"
        ),
        "nothing: deletes jobs that are done",
        "SELECT count(*) FROM graphile_worker.jobs",
        jobs=100_000,
    ),
    Peer(
        "pg-boss",
        "with_pg_boss.cjs",
        ("pg-boss",),
        "4 workers, batches of 2,000, polling every 0.5 s (the shortest)",
        "all rows, for its maintenance to archive",
        "SELECT count(*) FROM pgboss.job WHERE name = 'bench' AND state < 'completed'",
        jobs=100_000,
    ),
    Peer(
        "Procrastinate",
        "with_procrastinate.py",
        ("procrastinate", "psycopg[binary,pool]", "uvloop"),
        "concurrency 20, LISTEN/NOTIFY",
        "all rows, and an event row for each change",
        "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
        jobs=5_000,
    ),
    Peer(
        "PgQueuer (asyncpg)",
        "with_pgqueuer.py",
        ("pgqueuer", "asyncpg", "psycopg[binary]", "uvloop"),
        "5 managers as in its own benchmark, batches of 100, durability 'durable'",
        "moves jobs that are done to a log without their payload",
        "SELECT count(*) FROM pgqueuer",
    ),
    Peer(
        "PgQueuer (psycopg)",
        "with_pgqueuer.py",
        ("pgqueuer", "asyncpg", "psycopg[binary]", "uvloop"),
        "the same on psycopg",
        "moves jobs that are done to a log without their payload",
        "SELECT count(*) FROM pgqueuer",
        environment={"BENCH_DRIVER": "psycopg"},
    ),
    Peer(
        "oban-py",
        "with_oban.py",
        ("oban",),
        "one queue with a limit of 100",
        "all rows, for its pruner to remove after a day",
        "SELECT count(*) FROM oban_jobs WHERE state NOT IN ('completed', 'cancelled', 'discarded')",
        python=(3, 12),
    ),
    Peer(
        "Chancy",
        "with_chancy.py",
        ("chancy", "psycopg[binary,pool]", "uvloop"),
        "asyncio executor, concurrency 1,000, eager polling",
        "all rows, for its pruner to remove",
        "SELECT count(*) FROM chancy_jobs WHERE state NOT IN ('succeeded', 'failed')",
    ),
    Peer(
        "awa",
        "with_awa.py",
        ("awa-pg", "uvloop"),
        "queue storage, 1,000 workers, handlers in Python",
        "jobs that are done until their segment is rotated out",
        # Its view of all jobs takes minutes. What was claimed is completed in batches, too.
        """SELECT greatest(0, (SELECT coalesce(sum(claimed_count), 0)
                               FROM awa.ready_claim_attempt_batches)
                            - (SELECT coalesce(sum(completed_count), 0)
                                 FROM awa.receipt_completion_batches)
                            - (SELECT count(*) FROM awa.done_entries))""",
        jobs=100_000,
    ),
    Peer(
        "BullMQ",
        "with_bullmq.cjs",
        ("bullmq", "ioredis"),
        (
            "one worker, concurrency 500; Redis with appendonly yes, appendfsync everysec: up to a "
            "second of jobs may be lost"
        ),
        "all jobs, in memory",
        "LLEN bull:bench:wait; LLEN bull:bench:active; ZCARD bull:bench:prioritized",
        jobs=100_000,
        store="redis",
    ),
)
