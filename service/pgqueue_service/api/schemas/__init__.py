"""The shapes of requests and responses: in JSON, members are in camelCase.

What decoding does not check stands only in the description (`said`); the error message for it is
made where the rule is.
"""

from typing import Annotated, Any, ClassVar

import msgspec

from pgqueue_service.text import LONGEST_USER_ID

LONGEST_ID = 255
LONGEST_NAME = 255

NO_CONTROL = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]*$"
NO_NUL = r"^[^\u0000]*$"
MOMENT = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt "
    r"][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?$"
)
"""RFC 3339, or nothing."""
DURATION = r"^(\s*[0-9]+([.][0-9]+)?\s*(ms|s|m|h|d|)\s*)?$"
"""As pgqueue.durations takes it, or nothing."""


def said(**schema: Any) -> msgspec.Meta:
    """Words of JSON Schema for the description."""
    return msgspec.Meta(extra_json_schema=schema)


JobIdText = Annotated[str, said(maxLength=LONGEST_ID, pattern=NO_CONTROL)]
UserIdText = Annotated[str, said(maxLength=LONGEST_USER_ID, pattern=NO_CONTROL)]
QueueText = Annotated[str, said(maxLength=LONGEST_NAME, pattern=NO_CONTROL)]
MomentText = Annotated[str, said(pattern=MOMENT, examples=["2026-11-23T09:30:00Z"])]
DelayText = Annotated[str, said(pattern=DURATION, examples=["10m"])]
FilterText = Annotated[str, said(pattern=NO_NUL)]


class Shape(msgspec.Struct, rename="camel", kw_only=True):
    """Root of all shapes."""

    required: ClassVar[tuple[str, ...]] = ()
    """Members of a request that must be there, although decoding lets them be absent or null: the
    handler answers for all of them with one sentence."""


class Strict(Shape, forbid_unknown_fields=True):
    """Root of the shapes that take no other members: a misspelt name is an error."""
