"""Reading the environment: how each kind of value is written, and where a setting is looked up."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pgqueue.durations import duration, spoken


def text(value: str) -> str:
    return value.strip()


def flag(value: str) -> bool:
    match value.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError(f'not a yes or no: {value!r} (write "on" or "off")')


def number(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.strip().isdigit() or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}, not {value!r}")
        return int(value)

    return parse


def span(shortest: str, longest: str = "36500d") -> Callable[[str], timedelta]:
    def parse(value: str) -> timedelta:
        found = duration(value)
        if not duration(shortest) <= found <= duration(longest):
            raise ValueError(f"between {shortest} and {longest}, not {value!r}")
        return found

    return parse


def choice(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.strip().lower() not in choices:
            raise ValueError(f"one of {', '.join(choices)}, not {value!r}")
        return value.strip().lower()

    return parse


def words(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.replace("\n", ",").split(",") if part.strip())


def parse_queues(value: str) -> dict[str, int]:
    """From "default:50,images:4": how many jobs of each queue a worker runs at once."""
    queues: dict[str, int] = {}
    for part in words(value):
        name, colon, count = part.rpartition(":")
        if not colon:
            name, count = part, "50"
        if not name or not count.isdigit() or not 1 <= int(count) <= 10_000:
            raise ValueError(
                f"a queue is NAME:CONCURRENCY with 1 to 10000, not {part!r} (write "
                '"default:50,images:4")'
            )
        if name in queues:
            raise ValueError(f"queue {name} is named twice")
        queues[name] = int(count)
    if not queues:
        raise ValueError("at least one queue")
    return queues


def limit(value: str) -> tuple[int, timedelta]:
    count, slash, per = value.partition("/")
    if not slash or not count.strip().isdigit() or int(count) < 1 or duration(per) <= timedelta():
        raise ValueError(f'not a limit: {value!r} (write "10/1h": ten in any hour)')
    return int(count), duration(per)


def written(value: Any) -> str:
    """A setting's value as it could stand in the environment."""
    match value:
        case None:
            return ""
        case bool():
            return "on" if value else "off"
        case timedelta():
            return spoken(value)
        case dict():
            return ",".join(f"{key}:{count}" for key, count in value.items())
        case (int(count), timedelta() as window):
            return f"{count}/{spoken(window)}"
        case tuple():
            return ",".join(value)
    return str(value)


def setting(
    name: str,
    parse: Callable[[str], Any],
    default: Any,
    doc: str,
    *,
    secret: bool = False,
    also: tuple[str, ...] = (),
) -> Any:
    """A field of Settings. `default` is a text, as in the environment, or None; `also` are other
    names that mean the same."""
    value = None if default is None else parse(default)
    metadata = {
        "name": name,
        "parse": parse,
        "default": default,
        "doc": doc,
        "secret": secret,
        "also": also,
    }
    # No secret in the repr: settings are logged sooner or later.
    return dataclasses.field(default_factory=lambda: value, metadata=metadata, repr=not secret)


LINK = re.compile(r"(?:tcp|udp|sctp)://[^\s/]+:\d+")
"""What Kubernetes puts into the environment for a Service called pgqueue (PGQUEUE_PORT)."""


def read_secret(path: str) -> str:
    """The text of a file without a byte order mark and line ends. Blanks may belong to a
    password."""
    return stripped(Path(path).read_text(encoding="utf-8"))


def stripped(secret: str) -> str:
    return secret.removeprefix("\ufeff").strip("\r\n")


def is_link(value: str) -> bool:
    return LINK.fullmatch(value.strip()) is not None


def lookup(
    environment: Mapping[str, str], metadata: Mapping[str, Any], problems: list[str]
) -> tuple[str, str] | None:
    texts = []
    for name in (metadata["name"], *metadata["also"]):
        found = environment.get(name)
        if found is not None and is_link(found):
            continue
        if metadata["secret"]:
            found = _secret(environment, name, problems)
        if found and found.strip():
            texts.append((name, found))
    if not texts:
        return None
    if metadata["parse"] is words:
        return texts[0][0], ",".join(found for _, found in texts)
    return texts[0]


def _secret(environment: Mapping[str, str], name: str, problems: list[str]) -> str | None:
    """From NAME or the file NAME_FILE. One that is there and empty was meant to be there: it is a
    problem, and never "none"."""
    found, source = environment.get(name), name
    if not found and (path := environment.get(f"{name}_FILE")) is not None:
        source = f"{name}_FILE"
        try:
            found = read_secret(path) if path.strip() else ""
        except (OSError, UnicodeError) as error:
            problems.append(f"{source}: cannot be read: {type(error).__name__}")
            return None
    if found is None:
        return None
    found = stripped(found)
    # Without a database nothing is open, and every command says that it is missing.
    if not found.strip(" ,\t\n") and not name.endswith("_URL"):
        problems.append(f"{source} is empty: give it a value, or do not set it")
        return None
    if name.endswith("_TOKEN") and ("," in found or "\n" in found):
        problems.append(
            f"{name} is one token and holds no comma or line break: lists are for {name}S"
        )
        return None
    return found
