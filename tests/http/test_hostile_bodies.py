"""R15, without a gap: every hostile value in every member of every body.

What is refused is a 4xx with a clear sentence, and nothing is stored or changed. What is taken is
stored as the text that it is, without the characters that are removed. Nothing is executed: the
tables are there, and what a filter finds is nothing.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pgqueue_service.notifications import signin
from pgqueue_service.settings import ServiceSettings
from psycopg import AsyncConnection

from tests.support import hostile
from tests.support.api import SIGN_IN, SIGNIN
from tests.support.factories import the_job, value
from tests.support.hostile import (
    JSON,
    OTHERS,
    VALUES,
    Rule,
    clearly_refused,
    dead,
    everything,
    no_header_was_split,
    target,
)

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

Connection = AsyncConnection[Any]

EMAIL = {"to": "someone@example.com", "subject": "Subject", "body": "Body"}
USER = hostile.identifying(signin.LONGEST_USER_ID)
JOB_ID = hostile.identifying(255, optional=True)


@pytest.fixture
async def api(settings: ServiceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with target(settings) as client:
        yield client


@dataclass(frozen=True)
class Place:
    """A member of a body. `around` is the body with the member in it, `takes` what may stand
    there."""

    path: str
    member: str
    around: Any
    takes: Rule
    shows: bool = False

    def __str__(self) -> str:
        return f"{self.path.removeprefix('/api/')} {self.member}"

    def body(self, given: Any) -> Any:
        """`around`, with the value at the end of the path that `member` is:
        "jobs.1.payload.email"."""
        body = json.loads(json.dumps(self.around))
        inside, steps = body, self.member.split(".")
        for step in steps[:-1]:
            inside = inside[int(step) if isinstance(inside, list) else step]
        last = steps[-1]
        inside[int(last) if isinstance(inside, list) else last] = given
        return body


SIGN_IN_MEMBERS: dict[str, tuple[Rule, bool]] = {
    "userId": (USER, False),
    "email": (hostile.one_address, False),
    "name": (hostile.a_name, True),
    "provider": (hostile.shown, True),
    "ipAddress": (hostile.shown, True),
    "userAgent": (hostile.shown, True),
    "locale": (hostile.shown, True),
    "timestamp": (hostile.no_time, False),
}
EMAIL_MEMBERS: dict[str, tuple[Rule, bool]] = {
    "to": (hostile.one_address, False),
    "subject": (
        lambda given: (
            isinstance(given, str)
            and bool(given.strip())
            and not any(map(hostile.is_control, given))
        ),
        False,
    ),
    "body": (hostile.a_name, False),
}
A_SIGN_IN = {"type": "user.signin.notification", "payload": SIGN_IN}
A_MAIL = {"type": "email.custom", "payload": EMAIL}
ANYTHING = {"type": "anything", "payload": 1}
JOB_MEMBERS: dict[str, Rule] = {
    "type": lambda given: given in ("anything",),
    "payload": hostile.storable,
    "jobId": JOB_ID,
    "userId": hostile.identifying(signin.LONGEST_USER_ID, optional=True),
    "queue": hostile.identifying(255, optional=True),
    "priority": hostile.whole(0, 9),
    "runAfter": hostile.no_time,
    "maxAttempts": hostile.whole(1, 1000),
    "delay": hostile.a_delay,
    "unknown": lambda given: False,
}

PLACES = [
    *(Place(SIGNIN, name, SIGN_IN, takes, shows)
      for name, (takes, shows) in SIGN_IN_MEMBERS.items()),
    Place(SIGNIN, "jobId", SIGN_IN, JOB_ID),
    *(Place("/api/admin/send-email", name, EMAIL, takes, shows)
      for name, (takes, shows) in EMAIL_MEMBERS.items()),
    Place("/api/admin/send-email", "jobId", EMAIL, JOB_ID),
    *(Place("/api/jobs", name, ANYTHING, takes) for name, takes in JOB_MEMBERS.items()),
    *(Place("/api/jobs", f"payload.{name}", A_SIGN_IN, takes, shows)
      for name, (takes, shows) in SIGN_IN_MEMBERS.items()),
    *(Place("/api/jobs", f"payload.{name}", A_MAIL, takes, shows)
      for name, (takes, shows) in EMAIL_MEMBERS.items()),
    *(Place("/api/jobs/bulk", f"jobs.1.{name}", {"jobs": [ANYTHING, ANYTHING]}, takes)
      for name, takes in JOB_MEMBERS.items()),
    *(Place("/api/jobs/bulk", f"jobs.1.payload.{name}", {"jobs": [ANYTHING, A_SIGN_IN]},
            takes, shows)
      for name, (takes, shows) in SIGN_IN_MEMBERS.items()),
    Place("/api/jobs/bulk", "jobs.1", {"jobs": [ANYTHING, ANYTHING]}, lambda given: False),
    Place("/api/jobs/bulk", "jobs", {"jobs": []}, lambda given: False),
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=str)
async def test_a_job(api: httpx.AsyncClient, connection: Connection, place: Place) -> None:
    before = await everything(connection)
    for name, given in VALUES.items():
        response = await api.post(place.path, content=json.dumps(place.body(given)), headers=JSON)
        no_header_was_split(response)
        if not place.takes(given):
            assert clearly_refused(response, 400).get("index") == index_of(place, given), name
            assert await everything(connection) == before, name
            continue
        assert response.status_code == 202, (name, response.text[:300])
        answer = response.json()
        answer = answer["results"][1] if "results" in answer else answer
        assert answer.get("error") is None, (name, answer)
        await is_stored_as_it_is(connection, place, answer["jobId"], given)
        before = await everything(connection)


def index_of(place: Place, given: Any) -> int | None:
    """Which item a refusal names; none when the body is no JSON, or no list of jobs."""
    if not hostile.readable(given, 1000) or place.path != "/api/jobs/bulk":
        return None
    return 1 if "jobs.1" in place.member else 0 if isinstance(given, list) and given else None


async def is_stored_as_it_is(connection: Connection, place: Place, job_id: str, given: Any) -> None:
    row = await the_job(connection, job_id)
    member = place.member.rpartition(".")[2]
    columns = {
        "jobId": "job_id",
        "userId": "user_id",
        "queue": "queue",
        "type": "job_type",
        "priority": "priority",
    }
    if "payload." in place.member or place.path in (SIGNIN, "/api/admin/send-email"):
        stored = row["payload"].get(member, given)
    elif member == "payload":
        stored = row["payload"]
    else:
        stored = row[columns[member]] if member in columns else given
    assert not any(
        hostile.is_control(one)
        for one in f"{row['job_id']}{row['user_id']}{row['queue']}{row['job_type']}"
    )
    if given in (None, ""):
        return
    if place.shows:
        assert hostile.visible(given).startswith(stored) or not hostile.visible(given), stored
    elif member == "body":
        assert "\0" not in stored
    else:
        assert stored == given


@pytest.mark.parametrize("member", ["", *SIGN_IN_MEMBERS])
async def test_a_payload_that_takes_the_place_of_a_dead_one(
    api: httpx.AsyncClient, connection: Connection, member: str
) -> None:
    takes = SIGN_IN_MEMBERS[member][0] if member else lambda given: given is None
    for number, (name, given) in enumerate(VALUES.items()):
        job_id = f"dead-{number}"
        await dead(connection, job_id)
        before = await everything(connection)
        body = {"payload": SIGN_IN | {member: given} if member else given}
        response = await api.post(
            f"/api/admin/dlq/retry/{job_id}", content=json.dumps(body), headers=JSON
        )
        if takes(given) and (member != "userId" or given == "u1"):
            assert response.status_code == 202, (name, response.text)
            assert (await the_job(connection, job_id))["status"] == "enqueued"
        else:
            clearly_refused(response, 400)
            assert await everything(connection) == before, name


BATCH: dict[str, Rule] = {
    "ids": lambda given: isinstance(given, list) and given == ["a"],
    "ids.0": lambda given: isinstance(given, str) and hostile.storable(given),
    "type": hostile.a_filter,
    "userId": hostile.a_filter,
    "error": hostile.a_filter,
    "since": hostile.no_time,
    "until": hostile.no_time,
    "dryRun": hostile.a_flag,
    "ratePerSecond": lambda given: type(given) in (int, float) and 0.01 <= given <= 10_000,
}


@pytest.mark.parametrize("member", BATCH)
async def test_which_dead_jobs_go_back(
    api: httpx.AsyncClient, connection: Connection, member: str
) -> None:
    """Whatever stands in a filter, it is one more thing that nothing fits."""
    await dead(connection)
    before = await everything(connection)
    for name, given in VALUES.items():
        place = Place("/api/admin/dlq/retry-batch", member, {"ids": ["none"]}, BATCH[member])
        response = await api.post(place.path, content=json.dumps(place.body(given)), headers=JSON)
        if place.takes(given):
            assert response.status_code == 202, (name, response.text)
            assert response.json()["matched"] == response.json()["retried"] == 0
        else:
            clearly_refused(response, 400)
        assert await everything(connection) == before, name


async def test_only_true_means_all(api: httpx.AsyncClient, connection: Connection) -> None:
    await dead(connection)
    for name, given in VALUES.items():
        if given is not True:
            body = json.dumps({"all": given})
            response = await api.post("/api/admin/dlq/retry-batch", content=body, headers=JSON)
            clearly_refused(response, 400)
            assert (await the_job(connection, "dead"))["status"] == "dlq", name


TEN_MB = "x" * 10_000_000


class TestTenMegabytes:
    @pytest.mark.parametrize(
        "path", [SIGNIN, "/api/jobs", "/api/admin/send-email", "/api/admin/dlq/retry/dead"]
    )
    async def test_are_too_much_for_one_job(
        self, api: httpx.AsyncClient, connection: Connection, path: str
    ) -> None:
        await dead(connection)
        before = await everything(connection)
        for body in (TEN_MB, json.dumps({"a": TEN_MB}), "[" * len(TEN_MB)):
            response = await api.post(path, content=body, headers=JSON)
            assert clearly_refused(response, 413)["error"] == "The request body is too large"
        assert await everything(connection) == before

    @pytest.mark.parametrize(
        "member",
        ["type", "jobId", "userId", "queue", "runAfter", "payload.email", "payload.userId"],
    )
    async def test_in_one_member_of_many_jobs(
        self, api: httpx.AsyncClient, connection: Connection, member: str
    ) -> None:
        place = Place(
            "/api/jobs/bulk", f"jobs.0.{member}", {"jobs": [A_SIGN_IN]}, lambda given: False
        )
        response = await api.post(place.path, json=place.body(TEN_MB))
        assert clearly_refused(response, 400)["index"] == 0
        assert await value(connection, "SELECT count(*) FROM job_logs") == 0

    @pytest.mark.parametrize("member", ["name", "provider", "userAgent", "ipAddress", "locale"])
    async def test_of_what_is_only_shown_are_too_much_too(
        self, api: httpx.AsyncClient, connection: Connection, member: str
    ) -> None:
        place = Place(
            "/api/jobs/bulk", f"jobs.0.payload.{member}", {"jobs": [A_SIGN_IN]}, lambda given: False
        )
        refused = clearly_refused(await api.post(place.path, json=place.body(TEN_MB)), 400)
        assert refused["error"] == "jobs[0]: it is longer than 64 KiB"
        (result,) = (await api.post(place.path, json=place.body("x" * 60_000))).json()["results"]
        assert len((await the_job(connection, result["jobId"]))["payload"][member]) <= 512

    @pytest.mark.parametrize("member", ["type", "userId", "error", "since", "until"])
    async def test_as_a_filter(
        self, api: httpx.AsyncClient, connection: Connection, member: str
    ) -> None:
        await dead(connection)
        response = await api.post("/api/admin/dlq/retry-batch", json={member: TEN_MB})
        assert clearly_refused(response, 400)["error"] == f"{member} is longer than 64 KiB"

    async def test_of_brackets(self, api: httpx.AsyncClient) -> None:
        for opening in ("[", '{"a":', '{"jobs":[', "[{"):
            body = opening * (len(TEN_MB) // len(opening))
            clearly_refused(await api.post("/api/jobs/bulk", content=body, headers=JSON), 400)


def test_the_matrix_knows_every_member() -> None:
    """A member that is added to a request is added to the matrix."""
    from pgqueue_service.api.schemas import requests
    from pgqueue_service.notifications import http

    def members_of(*paths: str) -> set[str]:
        return {place.member.rpartition(".")[2] for place in PLACES if place.path in paths}

    assert members_of(SIGNIN) >= set(http.SignInRequest.__struct_encode_fields__)
    assert members_of("/api/admin/send-email") >= set(http.EmailRequest.__struct_encode_fields__)
    assert members_of("/api/jobs") >= set(requests.EnqueueRequest.__struct_encode_fields__)
    assert members_of("/api/jobs/bulk") >= set(requests.EnqueueRequest.__struct_encode_fields__) | {
        "jobs"
    }
    assert {*BATCH, "all"} >= set(requests.RetryBatchRequest.__struct_encode_fields__)
    assert OTHERS
