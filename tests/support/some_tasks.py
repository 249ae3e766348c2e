"""Task declarations for tests that need more types than the service has."""

from typing import Any

import msgspec

from pgqueue import Job, Limit, task


class Resize(msgspec.Struct):
    image: str
    width: int


@task("image.resize")
async def resize(job: Job[Resize]) -> None: ...


@task("anything")
async def anything(job: Job[Any]) -> None: ...


@task("limited", rate_limit=Limit(1, per="1h"))
async def limited(job: Job[Any]) -> None: ...


@task("owned", rate_limit=Limit(1, per="1h"), user_from="owner")
async def owned(job: Job[Any]) -> None: ...
