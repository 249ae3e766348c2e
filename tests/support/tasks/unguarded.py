"""A task module with a route that anyone could call."""

from typing import Any

from litestar import post

from pgqueue import Job, task


@task("test.unguarded")
async def handler(job: Job[Any]) -> None: ...


@post("/api/open-door")
async def open_door() -> None: ...


routes = [open_door]
