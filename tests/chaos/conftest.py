"""What every fault is given: a site of its own, and somebody who takes down what it came to."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pgqueue.embedded import EmbeddedServer
from tests.chaos.counts import Counts
from tests.chaos.site import DURABLE, Site

Record = Callable[[Counts], Counts]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(name): which fault the test is about, R1 to R17")


def fault_of(item: pytest.Item) -> str:
    marker = item.get_closest_marker("fault")
    return str(marker.args[0]) if marker else ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """CHAOS_FAULTS: these alone."""
    for item in items:
        item.user_properties.append(("fault", fault_of(item)))
    if wanted := os.environ.get("CHAOS_FAULTS", "").split():
        config.hook.pytest_deselected(items=[item for item in items if fault_of(item) not in wanted])
        items[:] = [item for item in items if fault_of(item) in wanted]


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
        request.node.user_properties.append(("counts", {"settings": site.settings_shown, **counts.plain()}))
        counts.sound()
        return counts

    return take
