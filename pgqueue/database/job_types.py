"""Publishes the declarations of job types, so that limits and defaults hold for every caller."""

import hashlib
import logging
from collections.abc import Iterable
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from pgqueue.database.worker_connection import load
from pgqueue.durations import duration
from pgqueue.settings import Settings
from pgqueue.task import Declaration, Task

log = logging.getLogger("pgqueue.database.job_types")


def declarations(tasks: Iterable[Task[Any]], settings: Settings) -> list[Declaration]:
    return [task.declaration(settings) for task in tasks]


def fingerprints(declared: Iterable[Declaration]) -> dict[str, str]:
    """Job type -> hash of its declaration: two live processes that differ in one disagree about
    that type."""
    return {
        one.job_type: hashlib.sha256(msgspec.json.encode(one)).hexdigest()[:12] for one in declared
    }


async def publish(
    connection: AsyncConnection[Any], declared: list[Declaration]
) -> list[dict[str, Any]]:
    """Writes the declarations into job_types, logs each change (old and new), and returns the
    changes."""
    if not declared:
        return []
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(load("publish_types"), _columns(declared))
        changes = await cursor.fetchall()
    for_all = {one.job_type for one in declared if not one.admin}
    for change in changes:
        if change["new"]["admin"] and change["job_type"] in for_all:
            log.warning(
                (
                    "job type %s stays for administrators: only pgqueue migrate, the API or an "
                    "operator may open it to all callers"
                ),
                change["job_type"],
                extra={"event": "type.kept"},
            )
        if change["new"] == change["old"]:
            continue
        if change["old"] is None:
            log.info(
                "job type %s is new",
                change["job_type"],
                extra={"event": "type.new", "new": change["new"]},
            )
        else:
            keys = [key for key, value in change["new"].items() if value != change["old"][key]]
            log.warning(
                "job type %s changed: %s",
                change["job_type"],
                ", ".join(f"{key} {change['old'][key]} -> {change['new'][key]}" for key in keys),
                extra={"event": "type.changed", "old": change["old"], "new": change["new"]},
            )
    return [change for change in changes if change["new"] != change["old"]]


def _columns(declared: list[Declaration]) -> dict[str, list[Any]]:
    return {
        "job_types": [one.job_type for one in declared],
        "queues": [one.queue for one in declared],
        "max_attempts": [one.max_attempts for one in declared],
        "limit_counts": [one.limit.count if one.limit else None for one in declared],
        "limit_windows": [one.limit.window if one.limit else None for one in declared],
        "users_from": [one.user_from for one in declared],
        "backoff_bases": [duration(one.backoff.base) for one in declared],
        "backoff_caps": [duration(one.backoff.cap) for one in declared],
        "timeouts": [one.timeout for one in declared],
        "depends_on": [one.depends_on for one in declared],
        "admins": [one.admin for one in declared],
    }
