"""What every fault is given: a site of its own, and somebody who takes down what it came to."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pgqueue.embedded.server import EmbeddedServer
from tests.chaos.counts import Counts
from tests.chaos.site import DURABLE, Site

Record = Callable[[Counts], Counts]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(name): which fault the test is about, R1 to R23")


def fault_of(item: pytest.Item) -> str:
    marker = item.get_closest_marker("fault")
    return str(marker.args[0]) if marker else ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """CHAOS_FAULTS: these alone. CHAOS_SHARD: of those, every M-th from the N-th on."""
    for item in items:
        item.user_properties.append(("fault", fault_of(item)))
    wanted = os.environ.get("CHAOS_FAULTS", "").split()
    part, parts = map(int, os.environ.get("CHAOS_SHARD", "1/1").split("/"))
    kept = [item for item in items if not wanted or fault_of(item) in wanted][part - 1 :: parts]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    with EmbeddedServer(DURABLE) as server:
        made = Site(server, tmp_path)
        await made.set_up()
        yield made


@pytest.fixture
def record(site: Site, request: pytest.FixtureRequest) -> Record:
    """Takes counts down, for whoever makes a report, and asserts that they are sound."""

    def take(counts: Counts) -> Counts:
        request.node.user_properties.append(
            ("counts", {"settings": site.settings_shown, **counts.plain()})
        )
        counts.sound()
        return counts

    return take
