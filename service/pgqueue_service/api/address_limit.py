"""How many jobs one network address may post to a route that needs no token.

The limit per user is in the database and is exact. With that limit alone, a stranger could use it
up with ten posts in a user's name, and the user's own post would be refused. So one address gets
only a part of what one user may have, and a limit in all. Each API process counts for itself and
lets its share through: together never more than the limit, rounded up for each process.
"""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from pgqueue.errors import RateLimited
from pgqueue_service.settings import ServiceSettings

REMEMBERED = 10_000
"""Addresses, and addresses with a user, that a process remembers; the oldest are forgotten
first."""

HOPS = 20
"""The most addresses that are read of X-Forwarded-For, from its end."""

Key = tuple[str, str]
Address = IPv4Address | IPv6Address


class AddressLimit:
    """Counts the recent posts of each network address."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._all, self._window = settings.address_limit
        self._trusted = [ip_network(one) for one in settings.trusted_proxies]
        self._posts: OrderedDict[Key, deque[float]] = OrderedDict()

    def address_of(self, scope: Mapping[str, Any]) -> str | None:
        """The address that a request comes from; None for this machine, whose programs are trusted.
        An IPv6 address stands for its /64, which one customer has. Behind a proxy it is the proxy's
        address, unless the proxy is trusted and names another."""
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

    def count(
        self,
        address: str,
        user_id: str,
        *,
        job_type: str,
        of_user: tuple[int, timedelta] | None,
        processes: int,
    ) -> None:
        """Count one more post. Raises RateLimited when it is one too many; it is then not counted.

        of_user: the limit of the job type for one user, and its window. processes: API processes
        that are alive.
        """
        now = time.monotonic()
        asked = [((address, ""), self._all, self._window)]
        if of_user:
            count, window = of_user
            # A fifth stays for posts from other addresses, such as the user's own.
            asked.append(
                ((address, f"{job_type}:{user_id}"), max(1, count - max(1, count // 5)), window)
            )
        for key, limit, window in asked:
            share = math.ceil(limit / max(1, processes))
            posts = self._posts.get(key)
            while posts and posts[0] <= now - window.total_seconds():
                posts.popleft()
            if posts and len(posts) >= share:
                raise RateLimited(
                    job_type, timedelta(seconds=posts[0] + window.total_seconds() - now)
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
