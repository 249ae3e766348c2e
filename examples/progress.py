"""A long job that says how far it is."""

import msgspec

from pgqueue import Job, task


class Album(msgspec.Struct):
    images: list[str]


# [task]
@task("album.resize", timeout="10m")
async def resize_album(job: Job[Album]) -> None:
    for done, image in enumerate(job.payload.images, 1):
        print("resizing", image)
        await job.progress(done / len(job.payload.images), f"{image} done")


# [/task]
