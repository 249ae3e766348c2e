"""What a task module may say about the payloads that callers post over HTTP."""

from collections.abc import Callable
from typing import Any

import msgspec

from pgqueue_service.settings import ServiceSettings

JSON = dict[str, Any]


class PayloadRules(msgspec.Struct, frozen=True, kw_only=True):
    """How the API reads the posted payloads of one job type, beyond decoding them. A task module
    brings a list of them as `payload_rules`."""

    job_type: str
    members: tuple[str, ...]
    """The members that the type knows; others are dropped, as are null and empty ones."""
    fill: Callable[[JSON, ServiceSettings], JSON]
    """Returns what the server adds to the members that were sent, or changes in them. Raises
    ValueError with a sentence for the caller."""
    make_id: Callable[[JSON], str] | None = None
    """Makes the id of a job that is posted without one."""
    too_many: str | None = None
    """The sentence for a job that the limit of the type refuses."""
