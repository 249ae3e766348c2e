"""The statements of sql/, by name."""

from functools import cache
from importlib.resources import files


@cache
def load(name: str, folder: str = "queries") -> str:
    """The statement in sql/<folder>/<name>.sql."""
    return files(f"pgqueue.sql.{folder}").joinpath(f"{name}.sql").read_text(encoding="utf-8")
