"""A worker inside a program of your own. Stop it with Ctrl-C or SIGTERM."""

import asyncio
import signal

from images import resize

from pgqueue import Worker
from pgqueue.settings import settings_from


# [worker]
async def main() -> None:
    worker = Worker(settings_from(), tasks=[resize])
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, worker.stop)
    running = asyncio.create_task(worker.run())
    await worker.ready.wait()
    print("ready")
    await running


asyncio.run(main())
# [/worker]
