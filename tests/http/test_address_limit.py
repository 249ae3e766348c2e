"""Where no token is asked for, one network address cannot use up what is another's."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pgqueue_service.api import address_limit as addresses
from pgqueue_service.api.address_limit import AddressLimit
from pgqueue_service.settings import ServiceSettings

from pgqueue.errors import RateLimited, SettingsError
from pgqueue.settings import settings_from
from tests.support.api import API, API_TOKEN, SIGN_IN, SIGNIN, open_api, problem

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("error")]

ANONYMOUS: dict[str, Any] = {"host": "0.0.0.0", "allow_anonymous": True}


class World:
    """Callers from any address, of one service."""

    def __init__(self, api: httpx.AsyncClient) -> None:
        self.app = api._transport.app

    async def post(self, address: str, headers: Any = None, **event: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=(address, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://jobs.example") as caller:
            return await caller.post(SIGNIN, json=SIGN_IN | event, headers=headers)

    async def codes(self, address: str, count: int, headers: Any = None, **event: Any) -> list[int]:
        return [(await self.post(address, headers, **event)).status_code for _ in range(count)]


def world(settings: ServiceSettings, **changes: Any) -> AbstractAsyncContextManager[World]:
    @asynccontextmanager
    async def opened() -> Any:
        async with open_api(settings, **(ANONYMOUS | changes)) as api:
            yield World(api)

    return opened()


async def test_a_stranger_leaves_a_user_some_of_the_limit(settings: ServiceSettings) -> None:
    async with world(settings) as callers:
        assert await callers.codes("198.51.100.7", 12) == [202] * 8 + [429] * 4
        refused = await callers.post("198.51.100.7")
        assert (
            problem(refused, 429)["error"]
            == "Too many sign-in notifications. Please try again later."
        )
        assert int(refused.headers["retry-after"]) > 3500
        # The user's own alert, and the next one; then the limit of the user itself is reached.
        assert await callers.codes("203.0.113.9", 3) == [202, 202, 429]
        assert (await callers.post("198.51.100.7", userId="u2")).status_code == 202


async def test_an_address_gets_so_many_in_all(settings: ServiceSettings) -> None:
    async with world(settings, address_limit=(3, timedelta(hours=1))) as callers:
        codes = [
            (await callers.post("198.51.100.7", userId=f"u{number}")).status_code
            for number in range(5)
        ]
        assert codes == [202, 202, 202, 429, 429]
        assert (await callers.post("198.51.100.8")).status_code == 202


async def test_our_own_host_is_not_counted_and_a_token_neither(settings: ServiceSettings) -> None:
    few = {"address_limit": (2, timedelta(hours=1))}
    async with world(settings, **few) as callers:
        for address in ("127.0.0.1", "::1", "127.9.9.9", "::ffff:127.0.0.1"):
            assert await callers.codes(address, 4, userId=address) == [202] * 4
    async with world(settings, **few, api_tokens=(API_TOKEN,)) as callers:
        assert await callers.codes("198.51.100.7", 10, API, userId="u5") == [202] * 10


async def test_what_is_malformed_does_not_count(settings: ServiceSettings) -> None:
    async with world(settings, address_limit=(1, timedelta(hours=1))) as callers:
        assert await callers.codes("198.51.100.7", 3, email="none") == [400] * 3
        assert await callers.codes("198.51.100.7", 2) == [202, 429]


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "counted"),
    [
        ((), "198.51.100.7", [], "198.51.100.7"),
        ((), "198.51.100.7", ["203.0.113.1"], "198.51.100.7"),
        ((), "127.0.0.1", ["203.0.113.1"], None),
        (("127.0.0.0/8",), "127.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        (("127.0.0.1",), "127.0.0.1", [], None),
        (("10.0.0.0/8",), "10.0.0.2", ["203.0.113.1, 10.0.0.9"], "203.0.113.1"),
        (("10.0.0.0/8",), "10.0.0.2", ["203.0.113.1", "10.0.0.9"], "203.0.113.1"),
        (("10.0.0.0/8",), "10.0.0.2", ["127.0.0.1, 203.0.113.1"], "203.0.113.1"),
        (("10.0.0.0/8",), "10.0.0.2", ["203.0.113.1, nonsense"], "10.0.0.2"),
        (("10.0.0.0/8",), "10.0.0.2", ["1," * 5000 + "203.0.113.1"], "203.0.113.1"),
        (("10.0.0.0/8",), "198.51.100.7", ["203.0.113.1"], "198.51.100.7"),
        (("::1", "10.0.0.0/8"), "::1", ["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
        (("::1",), "::1", ["[2001:db8:1:2:3::4]"], "2001:db8:1:2::/64"),
        ((), "2001:db8:1:2:5::6%eth0", [], "2001:db8:1:2::/64"),
        ((), "::ffff:198.51.100.7", [], "198.51.100.7"),
        ((), "testclient", [], None),
    ],
)
def test_whose_address_counts(
    trusted: tuple[str, ...], peer: str, forwarded: Sequence[str], counted: str | None
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    found = AddressLimit(ServiceSettings(trusted_proxies=trusted)).address_of(
        {"client": (peer, 1), "headers": headers}
    )
    assert found == counted


def count(limits: AddressLimit, address: str, user_id: str, processes: int) -> None:
    """One more post of a job type that allows one user ten jobs an hour."""
    limits.count(
        address,
        user_id,
        job_type="t",
        of_user=(10, timedelta(hours=1)),
        processes=processes,
    )


def test_processes_share_the_limit() -> None:
    limits = AddressLimit(ServiceSettings(address_limit=(10, timedelta(hours=1))))
    for number in range(3):
        count(limits, "198.51.100.7", f"u{number}", 4)
    with pytest.raises(RateLimited):
        count(limits, "198.51.100.7", "u3", 4)
    count(limits, "198.51.100.7", "u3", 1)


async def test_they_know_how_many_they_are(settings: ServiceSettings) -> None:
    async with open_api(settings) as first, open_api(settings) as second:
        for api in (first, second):
            readiness = api._transport.app.state.gateway._readiness
            await readiness.beat()
            assert readiness.processes == 2


def test_a_place_comes_free_when_the_window_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(addresses.time, "monotonic", lambda: now)
    limits = AddressLimit(ServiceSettings(address_limit=(2, timedelta(seconds=10))))
    count(limits, "a", "u1", 1)
    now += 6
    count(limits, "a", "u2", 1)
    with pytest.raises(RateLimited) as refused:
        count(limits, "a", "u3", 1)
    assert refused.value.retry_after == timedelta(seconds=4)
    now += 4
    count(limits, "a", "u3", 1)
    with pytest.raises(RateLimited):
        count(limits, "a", "u4", 1)


def test_what_is_remembered_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "REMEMBERED", 10)
    limits = AddressLimit(ServiceSettings())
    for number in range(100):
        count(limits, f"198.51.100.{number}", "u1", 1)
    assert len(limits._posts) == 10


@pytest.mark.parametrize("networks", ["10.0.0.0/33", "example.com", "10.0.0.1/8", "*"])
def test_a_proxy_is_an_address_or_a_network(networks: str) -> None:
    with pytest.raises(SettingsError, match="PGQUEUE_TRUSTED_PROXIES"):
        settings_from({"PGQUEUE_TRUSTED_PROXIES": networks}, ServiceSettings)
    assert settings_from(
        {"PGQUEUE_TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8"}, ServiceSettings
    ).trusted_proxies == (
        "127.0.0.1",
        "10.0.0.0/8",
    )
