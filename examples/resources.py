"""Things that a worker opens once, and all of its jobs share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pgqueue import Job, Settings, task


class Cache:
    """Stands for an HTTP client, a connection pool, a model in memory."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}


# [lifespan]
@asynccontextmanager
async def lifespan(settings: Settings) -> AsyncIterator[Cache]:
    cache = Cache()  # opened when the worker starts
    yield cache  # what every job of this module gets as job.resources
    cache.pages.clear()  # closed when the worker stops


@task("page.warm")
async def warm(job: Job[dict[str, str], Cache]) -> None:
    job.resources.pages[job.payload["url"]] = "..."


# [/lifespan]
