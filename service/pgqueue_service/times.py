"""Times as callers write them and as answers show them."""

import re
from datetime import UTC, datetime, timedelta

_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt "
    r"]([0-9]{2}:[0-9]{2}:)([0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)

# A day of room on either side, so that no time zone it is shown in falls off the calendar.
_FIRST = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
_LAST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)


def moment(text: str) -> datetime:
    """An aware datetime in UTC, from RFC 3339. Raises ValueError."""
    found = _RFC_3339.fullmatch(text)
    try:
        if not found:
            raise ValueError(text)
        date, minutes, seconds, fraction, zone = found.groups()
        # A leap second is a second like others to us; fractions below the microsecond are not kept.
        leap = seconds == "60"
        spelt = (
            f"{date}T{minutes}{'59' if leap else seconds}.{(fraction or '0')[:6]:0<6}{zone.upper()}"
        )
        result = datetime.fromisoformat(spelt).astimezone(UTC) + timedelta(seconds=leap)
        if not _FIRST <= result <= _LAST:
            raise ValueError(text)
        return result
    except (ValueError, OverflowError):
        raise ValueError(
            "timestamp must be a date and time as in RFC 3339, such as 2026-11-23T09:30:00Z"
        ) from None


def written(when: datetime) -> str:
    """YYYY-MM-DDTHH:MM:SS.mmmZ, as every time in the service's JSON."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"
