"""An application in a process that may open few files."""

import resource
from typing import Any

from pgqueue_service.app import create_app as create

from pgqueue.settings import Settings


def create_app(settings: Settings) -> Any:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    return create(settings)
