"""From NewJob to the parameters of the statements that enqueue; what cannot be a job is refused
with a sentence."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from pgqueue.declarations import CONTROL
from pgqueue.durations import duration
from pgqueue.errors import InvalidJob
from pgqueue.job import AnyJob, DeadFilter
from pgqueue.payloads import fitted, to_plain
from pgqueue.task import Task

_encode = msgspec.json.Encoder(enc_hook=to_plain).encode
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""The escape itself, and not an escaped backslash before the word u0000."""
_QUOTED = re.compile(r'["\\]')
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
"""Between them lies every run_after."""

MAX_SLICE_JOBS = 100
"""Jobs that are encoded in one go, while other tasks of the event loop wait: a millisecond or
two."""

MAX_SLICE_CHARACTERS = 64 * 1024
"""Of their payloads, likewise."""


def parameters(job: AnyJob) -> dict[str, Any]:
    """Raises InvalidJob."""
    try:
        payload = _payload(job)
        return {
            "job_type": job_type_of(job),
            "payload": payload,
            "job_id": _text("job_id", job.job_id),
            "user_id": _text("user_id", job.user_id),
            "queue": _text("queue", job.queue),
            "priority": _number("priority", job.priority, 0, 9),
            "run_after": _moment(job.run_after),
            "delay": None
            if job.delay is None or job.run_after is not None
            else duration(job.delay),
            "max_attempts": _number("max_attempts", job.max_attempts, 1, 1000),
            "filled": _filled(job, payload),
        }
    except ValueError as error:
        raise InvalidJob(str(error)) from None


def with_id(values: dict[str, Any]) -> bool:
    """Gives a job without an id one, so that its statement can safely be sent again when a reply
    was lost; whether it had none."""
    mine = values["job_id"] is None
    if mine:
        values["job_id"] = f"{values['job_type']}-{uuid4()}"
    return mine


async def bulk_parameters(
    jobs: Sequence[AnyJob], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The parameters of many, each with an id, and all of them as by `document`. InvalidJob names
    the index of a job that cannot be one. Made in slices, so that other tasks of an event loop do
    not wait for thousands of jobs: between two slices it calls `sleep(0)`."""
    given, items = [], []
    count = load = 0
    for index, job in enumerate(jobs):
        if count == MAX_SLICE_JOBS or load >= MAX_SLICE_CHARACTERS:
            await sleep(0)
            count = load = 0
        try:
            values = parameters(job)
        except InvalidJob as error:
            raise InvalidJob(f"job {index}: {error}", index=index) from None
        with_id(values)
        count, load = count + 1, load + len(values["payload"])
        given.append(values)
        items.append(_item(values))
    return given, _document(items)


def document(given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters of many as the one JSON document that enqueue_jobs.sql and enqueue_group.sql
    read."""
    return _document([_item(values) for values in given])


def _document(items: Sequence[bytes]) -> dict[str, Any]:
    return {"jobs": f"[{b','.join(items).decode()}]"}


def _item(values: Mapping[str, Any]) -> bytes:
    item = {name: value for name, value in values.items() if value is not None}
    item["payload"] = msgspec.Raw(item["payload"].encode())
    if "filled" in item:
        item["filled"] = msgspec.Raw(item["filled"].encode())
    if "delay" in item:
        item["delay"] = item["delay"].total_seconds()
    return _encode(item)


def filter_parameters(which: DeadFilter) -> dict[str, Any]:
    """What statements are given that take a filter. The ids as Postgres writes an array: psycopg
    takes a tenth of a second for 10,000 of them, in which nothing else runs."""
    values = msgspec.structs.asdict(which)
    if which.job_ids is not None:
        quoted = (_QUOTED.sub(r"\\\g<0>", job_id).join('""') for job_id in which.job_ids)
        values["job_ids"] = "{" + ",".join(quoted) + "}"
    return values


def job_type_of(job: AnyJob) -> str:
    """The name of its type. Raises InvalidJob."""
    if isinstance(job.task, Task):
        return job.task.job_type
    if isinstance(job.task, str):
        return _text("job_type", job.task) or ""
    raise InvalidJob(f"a job needs a Task or the name of a job type, not {type(job.task).__name__}")


def queue_of(job: AnyJob) -> str | None:
    """Where it goes, as far as that can be known without the database."""
    return job.queue or (job.task.queue if isinstance(job.task, Task) else None)


def _filled(job: AnyJob, payload: str) -> str | None:
    if not job.filled:
        return None
    if not payload.startswith("{"):
        raise InvalidJob("only a payload that is an object can be filled in")
    return json_text(job.filled)


def _payload(job: AnyJob) -> str:
    if isinstance(job.task, Task) and job.task.payload_type is not Any:
        try:
            fitted(job.payload, job.task.payload_type)
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidJob(f"the payload does not fit {job.task.job_type}: {error}") from None
    return json_text(job.payload)


def json_text(value: Any) -> str:
    """The value as JSON that Postgres can store. Raises InvalidJob."""
    try:
        text = _encode(value).decode()
        if "null" in text and _no_number(_plain(value)):
            raise InvalidJob(
                "the payload contains NaN or an infinite number, for which JSON has no word"
            )
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidJob(f"the payload cannot be written as JSON: {error}") from None
    if "\\u0000" in text and _NUL.search(text):
        raise InvalidJob("the payload contains a NUL character, which Postgres cannot store")
    return text


def _plain(value: Any) -> Any:
    # msgspec.Raw is JSON already.
    return msgspec.to_builtins(
        value,
        enc_hook=lambda written: None if isinstance(written, msgspec.Raw) else to_plain(written),
    )


def _no_number(value: Any) -> bool:
    """Whether a float is in it that JSON has no word for: the encoder writes null."""
    inner = (
        value.values()
        if isinstance(value, dict)
        else value
        if isinstance(value, list | tuple)
        else ()
    )
    return (isinstance(value, float) and not math.isfinite(value)) or any(
        _no_number(one) for one in inner
    )


def _text(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= 255:
        raise InvalidJob(f"{name} is a text of 1 to 255 characters")
    if CONTROL.search(value):
        raise InvalidJob(f"{name} contains a control character")
    return value


def _number(name: str, value: int | None, low: int, high: int) -> int | None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high
    ):
        raise InvalidJob(f"{name} is a whole number from {low} to {high}")
    return value


def _moment(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise InvalidJob("run_after needs a time zone")
    if not EARLIEST <= value < LATEST:
        raise InvalidJob("run_after is between the years 1970 and 9998")
    return value
