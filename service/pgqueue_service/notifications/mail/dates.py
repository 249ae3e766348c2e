"""A moment in the words of a language. Two languages, so no Babel, which is 33 MB; the spellings
are those of CLDR."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

_MN_MONTHS = (
    "нэгдүгээр", "хоёрдугаар", "гуравдугаар", "дөрөвдүгээр", "тавдугаар", "зургаадугаар",
    "долоодугаар", "наймдугаар", "есдүгээр", "аравдугаар", "арван нэгдүгээр", "арван хоёрдугаар",
)  # fmt: skip
_MN_DAYS = ("даваа", "мягмар", "лхагва", "пүрэв", "баасан", "бямба", "ням")
_EN_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_EN_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def in_words(moment: datetime, zone: ZoneInfo, locale: str) -> str:
    """Date and time of an aware datetime in that zone, the zone named, in `mn` or `en`."""
    local = moment.astimezone(zone)
    if locale == "mn":
        date = (
            f"{local.year} оны {_MN_MONTHS[local.month - 1]} сарын {local.day}, "
            f"{_MN_DAYS[local.weekday()]} гараг"
        )
    else:
        date = (
            f"{_EN_DAYS[local.weekday()]}, {local.day} {_EN_MONTHS[local.month - 1]} {local.year}"
        )
    return f"{date}, {local:%H:%M} ({_zone(local, zone.key, locale)})"


def _zone(local: datetime, key: str, locale: str) -> str:
    offset = _offset(local.utcoffset() or timedelta())
    city = key.rpartition("/")[2].replace("_", " ")
    if locale == "mn":
        # The language inflects names: a city is named only where its genitive is known.
        return f"Улаанбаатарын цагаар, {offset}" if city == "Ulaanbaatar" else f"{key}, {offset}"
    return f"{city} time, {offset}" if "/" in key else f"{key}, {offset}"


def _offset(offset: timedelta) -> str:
    minutes = round(offset.total_seconds() / 60)
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'-' if minutes < 0 else '+'}{hours}" + (f":{rest:02}" if rest else "")
