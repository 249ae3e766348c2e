"""How many sign-ins one network address may post where no token is asked for.

The limit per user stands in the database and is exact. Alone it lets a stranger use it up with ten
posts in a user's name, and then that user's own alert is refused. So one address gets only a part
of what a user may have, and so much in all. This is counted in each API process, and each lets
through its share: together never more than the limit, rounded up for each process.
"""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from pgqueue.errors import RateLimited
from pgqueue_service.notifications import signin
from pgqueue_service.settings import ServiceSettings

REMEMBERED = 10_000
"""Addresses, and addresses with a user, that a process remembers; of those that are forgotten the
oldest first."""

HOPS = 20
"""Addresses that are read of X-Forwarded-For, from its end."""

Key = tuple[str, str]
Address = IPv4Address | IPv6Address


class Addresses:
    """What each address has posted of late."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._all, self._window = settings.address_limit
        count, self._user_window = settings.signin_limit
        # A fifth stays for posts from elsewhere, such as the user's own.
        self._of_user = max(1, count - max(1, count // 5))
        self._trusted = [ip_network(one) for one in settings.trusted_proxies]
        self._posts: OrderedDict[Key, deque[float]] = OrderedDict()

    def of(self, scope: Mapping[str, Any]) -> str | None:
        """Where a request comes from; None for this machine, whose programs are not strangers. An
        IPv6 address stands for its /64, which one customer has to himself. Behind a proxy it is the
        proxy's, unless that is trusted and says another."""
        client = scope.get("client")
        found = _address(client[0]) if client else None
        if found is None:
            return None
        said = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        hops = said.decode("latin-1").rsplit(",", HOPS)[-HOPS:]
        while hops and self._is_trusted(found):
            before = _address(hops.pop().strip())
            if before is None:
                break
            found = before
        if found.is_loopback:
            return None
        return (
            str(found)
            if isinstance(found, IPv4Address)
            else str(ip_network((found, 64), strict=False))
        )

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def count(self, address: str, user_id: str, processes: int) -> None:
        """One more post. RateLimited when it is too many; then it does not count."""
        now = time.monotonic()
        asked = [
            ((address, ""), self._all, self._window),
            ((address, user_id), self._of_user, self._user_window),
        ]
        for key, limit, window in asked:
            share = math.ceil(limit / max(1, processes))
            posts = self._posts.get(key)
            while posts and posts[0] <= now - window.total_seconds():
                posts.popleft()
            if posts and len(posts) >= share:
                raise RateLimited(
                    signin.JOB_TYPE, timedelta(seconds=posts[0] + window.total_seconds() - now)
                )
        for key, _, _ in asked:
            self._posts.setdefault(key, deque()).append(now)
            self._posts.move_to_end(key)
        while len(self._posts) > REMEMBERED:
            self._posts.popitem(last=False)


def _address(text: str) -> Address | None:
    try:
        found = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
