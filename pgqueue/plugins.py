"""What other installed distributions add to pgqueue, by entry points.

`pgqueue.settings` names a class that inherits from Settings, `pgqueue.commands` a click command by
its name on the command line, `pgqueue.old_tables` an OldTable for `pgqueue migrate --adopt`.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pgqueue.errors import SettingsError
from pgqueue.settings import Settings


def settings_class() -> type[Settings]:
    """Return the class of settings that every command reads: the most special one installed.

    Raises SettingsError when two distributions bring classes of which neither inherits from the
    other, or when one cannot be loaded.
    """
    found: dict[str, type[Settings]] = {"pgqueue": Settings}
    for point in entry_points(group="pgqueue.settings"):
        loaded = load(point)
        if not (isinstance(loaded, type) and issubclass(loaded, Settings)):
            raise SettingsError([f"{described(point)} is not a class that inherits from Settings"])
        found[point.value] = loaded
    most = max(found.values(), key=lambda one: len(one.__mro__))
    if others := [name for name, one in found.items() if not issubclass(most, one)]:
        raise SettingsError(
            [
                f"the settings class {most.__module__}.{most.__name__} does not inherit from "
                f"{' and '.join(others)}: write one class that inherits from all of them"
            ]
        )
    return most


def commands() -> dict[str, EntryPoint]:
    """Return the commands of other distributions by their names."""
    return {point.name: point for point in entry_points(group="pgqueue.commands")}


def old_tables() -> list[EntryPoint]:
    """Return what `pgqueue migrate --adopt` can take over."""
    return list(entry_points(group="pgqueue.old_tables"))


def load(point: EntryPoint) -> Any:
    """Import what the entry point names. Raises SettingsError when that fails."""
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise SettingsError([f"{described(point)} cannot be loaded: {error}"]) from error


def described(point: EntryPoint) -> str:
    """The entry point with the distribution that brings it, for an error message."""
    owner = point.dist.name if point.dist else "an installed distribution"
    return f"{point.group} {point.name} = {point.value} of {owner}"
