"""One task. A worker runs it: PGQUEUE_MODULES=images python -m pgqueue.worker"""

import msgspec

from pgqueue import Job, task


class Resize(msgspec.Struct):
    image: str
    width: int


@task("image.resize", max_attempts=5, timeout="30s")
async def resize(job: Job[Resize]) -> None:
    print(f"resizing {job.payload.image} to {job.payload.width} pixels")
