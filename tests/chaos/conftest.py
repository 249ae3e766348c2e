"""What every fault is given: a site of its own, and somebody who takes down what it came to."""

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pgqueue.embedded import EmbeddedServer
from tests.chaos.counts import Counts
from tests.chaos.site import DURABLE, Site

Record = Callable[[Counts], Counts]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    with EmbeddedServer(DURABLE) as server:
        made = Site(server, tmp_path)
        await made.set_up()
        yield made


@pytest.fixture
def record(site: Site, request: pytest.FixtureRequest) -> Record:
    """Takes counts down where a report is wanted (CHAOS_OUT), and asserts that they are sound."""

    def take(counts: Counts) -> Counts:
        if out := os.environ.get("CHAOS_OUT"):
            told = counts.plain() | {"test": request.node.nodeid, "settings": site.settings_shown}
            (Path(out) / f"{request.node.name}.json").write_text(json.dumps(told, indent=2, default=str))
        counts.sound()
        return counts

    return take
