"""Handlers that are rude to the process they run in."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from typing import Any

from pgqueue import Job, task
from tests.support.tasks import note

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()


def close_the_loop() -> None:
    asyncio.get_running_loop().stop()
    asyncio.get_running_loop().close()


def cancel_everything() -> None:
    for one in asyncio.all_tasks():
        one.cancel()


def exit_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(sys.exit, 3)


def exit_in_a_subtask() -> None:
    async def leave() -> None:
        sys.exit(3)

    asyncio.get_running_loop().create_task(leave())


def ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def default_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def remove_handlers() -> None:
    for number in SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)


def take_the_wakeup() -> None:
    ours, theirs = socket.socketpair()
    for one in (ours, theirs):
        one.setblocking(False)
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(ours.fileno())


def fork_and_return() -> None:
    if os.fork() == 0:
        note(f"child {os.getpid()}")


def fork_and_raise() -> None:
    if os.fork() == 0:
        note(f"child {os.getpid()}")
        raise RuntimeError("in the child")


RUDE = {
    one.__name__: one
    for one in (
        stop_the_loop,
        close_the_loop,
        cancel_everything,
        exit_in_a_callback,
        exit_in_a_subtask,
        ignore_signals,
        default_signals,
        block_signals,
        remove_handlers,
        take_the_wakeup,
        fork_and_return,
        fork_and_raise,
    )
}


@task("test.rude", max_attempts=1)
async def rude(job: Job[Any]) -> None:
    RUDE[job.payload["how"]]()
    await asyncio.sleep(0.05)


@task("test.rude.thread", max_attempts=1)
def rude_thread(job: Job[Any]) -> None:
    RUDE[job.payload["how"]]()


@task("test.deaf", max_attempts=1)
async def deaf(job: Job[Any]) -> None:
    note("deaf")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


@task("test.stuck", max_attempts=1)
async def stuck(job: Job[Any]) -> None:
    note("stuck")
    until = time.monotonic() + job.payload["seconds"]
    while time.monotonic() < until:
        time.sleep(0.05)  # noqa: ASYNC251 - the event loop is what it blocks


@task("test.chatty")
async def chatty(job: Job[Any]) -> None:
    for _ in range(200):
        logging.getLogger("test").warning("x" * 1000)
