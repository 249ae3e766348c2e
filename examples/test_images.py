"""Tests of one's own tasks. Run them with pytest; DATABASE_URL is a migrated test database."""

from collections.abc import Iterator

import pytest
from images import Resize, resize

from pgqueue import Client, Status
from pgqueue.testing import assert_enqueued, drain, run


@pytest.fixture
def client() -> Iterator[Client]:
    with Client.from_env() as client:
        drain(client, resize)  # publishes the type
        yield client


def test_an_attempt_without_a_database() -> None:
    outcome = run(resize, Resize("a.png", 200))
    assert outcome.status is Status.COMPLETED


def test_a_payload_that_does_not_fit_is_a_dead_job() -> None:
    outcome = run(resize, {"image": "a.png"})
    assert outcome.status is Status.DLQ
    assert "width" in str(outcome.error)


def test_a_job_is_enqueued_and_performed(client: Client) -> None:
    client.enqueue(resize, Resize("a.png", 200), job_id="img-test-1")
    assert_enqueued(client, resize)
    drain(client, resize)
    assert client.get("img-test-1").status is Status.COMPLETED
