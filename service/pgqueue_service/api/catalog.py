"""The job types that this service knows, and the one translation of what callers post into jobs."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec

from pgqueue.durations import duration
from pgqueue.enqueue.encoding import EARLIEST, LATEST
from pgqueue.job import AnyJob, NewJob
from pgqueue.task import Declaration, Task
from pgqueue_service.api.problems import Refusal
from pgqueue_service.api.requests import sentence
from pgqueue_service.api.schemas import EmailRequest, EnqueueRequest, SignInRequest
from pgqueue_service.notifications import custom_email, signin
from pgqueue_service.notifications.members import identifying, moment
from pgqueue_service.settings import ServiceSettings

JSON = dict[str, Any]
LONGEST_NAME = 255


class Catalog:
    """Job types by name, with the defaults that the settings give their payloads."""

    def __init__(
        self, tasks: Mapping[str, Task[Any]], declared: list[Declaration], settings: ServiceSettings
    ) -> None:
        self._tasks = tasks
        self._declared = {one.job_type: one for one in declared}
        self._locale = settings.mail_locale
        self._special: dict[str, tuple[tuple[str, ...], Callable[[JSON], JSON]]] = {
            signin.JOB_TYPE: (signin.MEMBERS, self._fill_sign_in),
            custom_email.JOB_TYPE: (custom_email.MEMBERS, custom_email.fill),
        }

    def _fill_sign_in(self, sent: JSON) -> JSON:
        return signin.fill(sent, now=datetime.now(UTC), locale=self._locale)

    def is_admins(self, job_type: str) -> bool:
        return job_type in self._tasks and self._tasks[job_type].admin

    def sign_in(self, posted: SignInRequest, job_id: str | None) -> AnyJob:
        """A sign-in that was posted. Refusal 400."""
        sent, filled = self._checked(signin.JOB_TYPE, msgspec.to_builtins(posted))
        return NewJob(
            signin.JOB_TYPE,
            sent,
            job_id or _sign_in_id(sent["userId"]),
            filled=filled,
            fresh_id=not job_id,
        )

    def email(self, posted: EmailRequest, job_id: str | None) -> AnyJob:
        """An administrator's mail. Refusal 400."""
        sent, filled = self._checked(custom_email.JOB_TYPE, msgspec.to_builtins(posted))
        return NewJob(custom_email.JOB_TYPE, sent, job_id, filled=filled)

    def job(self, request: EnqueueRequest, job_id: str | None) -> AnyJob:
        """A job of any type. Refusal 400."""
        payload, filled = self._checked(request.type, request.payload)
        fresh = request.type == signin.JOB_TYPE and not job_id
        if fresh:
            job_id = _sign_in_id(payload["userId"])
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
        """A payload that takes the place of a dead job's, as it is stored; of a type that is not
        known here, any. Refusal 400."""
        if job_type not in self._tasks:
            return payload
        sent, filled = self._checked(job_type, payload)
        named = self._declared[job_type].user_from
        if named and _member(sent, named) != user_id:
            raise Refusal(400, f"{named} must stay {user_id}: the job is that user's")
        return sent | filled if filled else sent

    def _checked(self, job_type: str, payload: Any) -> tuple[Any, JSON | None]:
        """What counts as sent, and what the server fills in; what the handler would not get decoded
        is refused."""
        task = self._tasks.get(job_type)
        if task is None:
            raise Refusal(400, f"Unknown job type: {job_type[:LONGEST_NAME]}")
        if job_type in self._special:
            return self._translate(job_type, payload)
        try:
            msgspec.convert(payload, task.payload_type)
        except msgspec.ValidationError as error:
            raise Refusal(400, f"The payload does not fit {job_type}: {sentence(error)}") from None
        return payload, None

    def _translate(self, job_type: str, payload: Any) -> tuple[JSON, JSON]:
        members, fill = self._special[job_type]
        if not isinstance(payload, dict):
            raise Refusal(400, "The payload must be a JSON object")
        sent = {
            name: _storable(value)
            for name in members
            if (value := payload.get(name)) not in (None, "")
        }
        try:
            return sent, fill(sent)
        except ValueError as error:
            raise Refusal(400, str(error)) from None

    def _user(self, request: EnqueueRequest, payload: Any) -> str | None:
        declared = self._declared[request.type]
        user_id = (
            identifying("userId", request.user_id, signin.LONGEST_USER_ID)
            if request.user_id
            else None
        )
        named = _member(payload, declared.user_from) if declared.user_from else None
        if declared.user_from and isinstance(named, str):
            identifying(declared.user_from, named, signin.LONGEST_USER_ID)
        if declared.user_from and user_id and user_id != named:
            raise ValueError(f"userId is not the {declared.user_from} of the payload")
        if declared.limit and not (user_id or named):
            raise ValueError(f"userId is required: {request.type} has a limit per user")
        return user_id


def _member(payload: Any, name: str) -> Any:
    return payload.get(name) if isinstance(payload, dict) else None


def _storable(value: Any) -> Any:
    # NUL is the one character that Postgres cannot store. In what is only shown it is removed with
    # the other control characters; what identifies somebody is refused for the one that takes its
    # place.
    return value.replace("\0", "\x01") if isinstance(value, str) else value


def _sign_in_id(user_id: str) -> str:
    return f"signin-{user_id}-{int(datetime.now(UTC).timestamp() * 1000)}-{uuid4()}"


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
