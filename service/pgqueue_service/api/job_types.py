"""The job types that this service knows, and the one translation of what callers post into jobs."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from pgqueue.durations import duration
from pgqueue.enqueue.encoding import EARLIEST, LATEST
from pgqueue.job import AnyJob, NewJob
from pgqueue.task import Declaration, Task
from pgqueue_service.api.payload_rules import JSON, PayloadRules
from pgqueue_service.api.problems import Refusal
from pgqueue_service.api.schemas.requests import EnqueueRequest
from pgqueue_service.api.structs import sentence
from pgqueue_service.settings import ServiceSettings
from pgqueue_service.text import LONGEST_USER_ID, identifying
from pgqueue_service.times import moment

LONGEST_NAME = 255


class JobTypes:
    """Job types by name, with the rules that task modules bring for their payloads."""

    def __init__(
        self,
        tasks: Mapping[str, Task[Any]],
        declared: Iterable[Declaration],
        rules: Iterable[PayloadRules],
        settings: ServiceSettings,
    ) -> None:
        self._tasks = tasks
        self._declared = {one.job_type: one for one in declared}
        self._rules = {one.job_type: one for one in rules}
        self._settings = settings

    def is_admins(self, job_type: str) -> bool:
        """Whether only administrators may enqueue jobs of this type."""
        return job_type in self._tasks and self._tasks[job_type].admin

    def limit(self, job_type: str) -> tuple[int, timedelta] | None:
        """How many jobs of this type one user may have, and in which window."""
        declared = self._declared.get(job_type)
        return (
            (declared.limit.count, declared.limit.window) if declared and declared.limit else None
        )

    def user_of(self, job: AnyJob) -> str:
        """The user whose limit counts for a job of a declared type."""
        named = self._declared[job.task].user_from
        return job.user_id or (named and _member(job.payload, named)) or ""

    def too_many(self, job_type: str) -> str | None:
        """The sentence of the type's rules for a job that its limit refuses."""
        rules = self._rules.get(job_type)
        return rules.too_many if rules else None

    def job(self, request: EnqueueRequest, job_id: str | None) -> AnyJob:
        """A job of any type. Refusal 400."""
        payload, filled = self._checked(request.type, request.payload)
        rules = self._rules.get(request.type)
        fresh = rules is not None and rules.make_id is not None and not job_id
        if rules and rules.make_id and not job_id:
            job_id = rules.make_id(payload)
        try:
            return NewJob(
                task=request.type,
                payload=payload,
                job_id=job_id,
                user_id=self._user(request, payload),
                queue=identifying("queue", request.queue, LONGEST_NAME) if request.queue else None,
                priority=request.priority,
                run_after=_run_after(request.run_after),
                delay=_delay(request),
                max_attempts=request.max_attempts,
                filled=filled,
                fresh_id=fresh,
            )
        except ValueError as error:
            raise Refusal(400, str(error)) from None

    def replacement(self, job_type: str, user_id: str, payload: Any) -> Any:
        """The payload, as it is stored, that replaces the one of a dead job. For a type that is not
        known here, any payload will do. Refusal 400."""
        if job_type not in self._tasks:
            return payload
        sent, filled = self._checked(job_type, payload)
        named = self._declared[job_type].user_from
        if named and _member(sent, named) != user_id:
            raise Refusal(400, f"{named} must stay {user_id}: the job is that user's")
        return sent | filled if filled else sent

    def _checked(self, job_type: str, payload: Any) -> tuple[Any, JSON | None]:
        """What the caller sent, and what the server fills in. A payload that the handler could not
        decode is refused."""
        task = self._tasks.get(job_type)
        if task is None:
            raise Refusal(400, f"Unknown job type: {job_type[:LONGEST_NAME]}")
        if rules := self._rules.get(job_type):
            return self._translate(rules, payload)
        try:
            msgspec.convert(payload, task.payload_type)
        except msgspec.ValidationError as error:
            raise Refusal(400, f"The payload does not fit {job_type}: {sentence(error)}") from None
        return payload, None

    def _translate(self, rules: PayloadRules, payload: Any) -> tuple[JSON, JSON]:
        if not isinstance(payload, dict):
            raise Refusal(400, "The payload must be a JSON object")
        sent = {
            name: _storable(value)
            for name in rules.members
            if (value := payload.get(name)) not in (None, "")
        }
        try:
            return sent, rules.fill(sent, self._settings)
        except ValueError as error:
            raise Refusal(400, str(error)) from None

    def _user(self, request: EnqueueRequest, payload: Any) -> str | None:
        declared = self._declared[request.type]
        user_id = (
            identifying("userId", request.user_id, LONGEST_USER_ID) if request.user_id else None
        )
        named = _member(payload, declared.user_from) if declared.user_from else None
        if declared.user_from and isinstance(named, str):
            identifying(declared.user_from, named, LONGEST_USER_ID)
        if declared.user_from and user_id and user_id != named:
            raise ValueError(f"userId is not the {declared.user_from} of the payload")
        if declared.limit and not (user_id or named):
            raise ValueError(f"userId is required: {request.type} has a limit per user")
        return user_id


def _member(payload: Any, name: str) -> Any:
    return payload.get(name) if isinstance(payload, dict) else None


def _storable(value: Any) -> Any:
    # NUL is the one character that Postgres cannot store. Another control character takes its
    # place: it is removed from what is only shown, and what names a user is refused for it.
    return value.replace("\0", "\x01") if isinstance(value, str) else value


def _delay(request: EnqueueRequest) -> timedelta | None:
    if request.delay is None or request.delay == "":
        return None
    if request.run_after:
        raise ValueError("runAfter and delay say the same: give one of them")
    try:
        return duration(request.delay)
    except ValueError as error:
        raise ValueError(f"delay: {error}") from None


def _run_after(text: str | None) -> datetime | None:
    try:
        found = moment(text) if text else None
    except ValueError:
        raise ValueError(
            "runAfter must be a date and time as in RFC 3339, such as 2026-11-23T09:30:00Z"
        ) from None
    if found is not None and not EARLIEST <= found < LATEST:
        raise ValueError("runAfter must be between the years 1970 and 9998")
    return found
