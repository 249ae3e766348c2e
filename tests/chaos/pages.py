"""Whether people and programs can still look at everything: the API's pages and the command
line."""

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from tests.chaos.site import Site
from tests.chaos.web import Callers
from tests.support.processes import ROOT, env

ADMIN = "/api/admin"

T = TypeVar("T")


async def unreadable(callers: Callers, job_ids: Iterable[str]) -> list[str]:
    """Pages that were not answered with 200 and JSON: each job's, the dead-letter queue from its
    first to its last, and what else an operator looks at."""
    paths = [f"/api/jobs/{quote(job_id, safe='')}" for job_id in job_ids]
    paths += [f"{ADMIN}/dlq/errors", f"{ADMIN}/jobs/stats", f"{ADMIN}/workers", f"{ADMIN}/queues"]
    bad = []
    for some in batched(paths, 10):
        found = await asyncio.gather(*(page(callers, path) for path in some))
        bad += [path for path, answer in zip(some, found, strict=True) if answer is None]
    cursor: Any = ""
    while cursor is not None:
        path = f"{ADMIN}/dlq?limit=100" + (f"&cursor={quote(cursor, safe='')}" if cursor else "")
        listed = await page(callers, path)
        if listed is None:
            return [*bad, path]
        cursor = listed["nextCursor"]
    return bad


def batched(all_of_them: Sequence[T], number: int) -> Iterator[Sequence[T]]:
    """So many at a time, in their order."""
    for first in range(0, len(all_of_them), number):
        yield all_of_them[first : first + number]


async def page(callers: Callers, path: str) -> Any:
    """Its JSON; None when it is no answer."""
    answer = await callers.get(path)
    return json.loads(answer.said) if answer.code == 200 else None


async def command(site: Site, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """`pgqueue ARGUMENTS` as an operator, or as a worker where it prunes: exit code, output,
    errors."""
    group = "pgqueue_worker" if arguments[0] == "prune" else "pgqueue_operator"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pgqueue.cli", *arguments),
        cwd=ROOT,
        env=env(site.login(group).url, site.effects, environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            out, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(), said.decode()
