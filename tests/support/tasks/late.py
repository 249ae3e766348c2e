"""A module of tasks that takes long to start: in its import, or in its lifespan."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pgqueue import Job, task
from tests.support.tasks import note

if os.environ["TEST_SLEEPS"] == "import":
    note("sleeps")
    time.sleep(60)


@asynccontextmanager
async def lifespan(settings: Any) -> AsyncIterator[None]:
    note("sleeps")
    if os.environ["TEST_SLEEPS"] == "lifespan":
        await asyncio.sleep(60)
    else:
        time.sleep(60)  # noqa: ASYNC251 - the event loop is what it blocks
    yield


@task("test.late")
async def handler(job: Job[Any]) -> None: ...
