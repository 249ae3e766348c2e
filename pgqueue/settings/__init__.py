"""Every setting, typed, read from the environment; one error names all that is wrong."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal, Self, TypeVar, overload

from pgqueue.errors import SettingsError
from pgqueue.known_secrets import learn
from pgqueue.settings.conninfo import foreign_parameters, libpq_string, passwords_of, schema_of
from pgqueue.settings.environment import (
    choice,
    flag,
    lookup,
    number,
    parse_queues,
    setting,
    span,
    text,
    words,
    written,
)
from pgqueue.settings.unknown_names import strange_names


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of the library. Fields that are spans of time are timedeltas.

    A distribution that needs more inherits from this class and names its class in the entry point
    group `pgqueue.settings`: every command then reads that class.
    """

    also_read: ClassVar[frozenset[str]] = frozenset(("PGQUEUE_PG_BINDIR",))
    """Names that are read elsewhere, and for which there is no warning."""

    quiet_loggers: ClassVar[tuple[str, ...]] = ("psycopg", "asyncio")
    """Loggers of other libraries that log no more than warnings."""

    # The database
    database_url: str | None = setting(
        "DATABASE_URL", text, None, "the Postgres database", secret=True
    )
    direct_url: str | None = setting(
        "PGQUEUE_DIRECT_URL",
        text,
        None,
        "past the pooler: for leases, doorbell and migrations",
        secret=True,
    )
    pgbouncer: bool = setting(
        "PGQUEUE_PGBOUNCER",
        flag,
        "off",
        "a transaction pooler is in between: no prepared statements",
    )
    pool_size: int = setting(
        "PGQUEUE_POOL_SIZE",
        number(1, 1000),
        "10",
        "connections that an API process or a client holds",
    )
    statement_timeout: timedelta = setting(
        "PGQUEUE_STATEMENT_TIMEOUT",
        span("100ms", "1h"),
        "30s",
        "longest time that one statement of a worker may take",
    )

    enqueue_timeout: timedelta = setting(
        "PGQUEUE_ENQUEUE_TIMEOUT",
        span("50ms", "1h"),
        "5s",
        "how long a client waits for a connection and an answer",
    )

    # The worker
    queues: dict[str, int] = setting(
        "PGQUEUE_QUEUES", parse_queues, "default:50", "queues of a worker: how many jobs at once"
    )
    modules: tuple[str, ...] = setting(
        "PGQUEUE_MODULES", words, "", "modules with tasks; a worker runs their jobs"
    )
    lease: timedelta = setting(
        "PGQUEUE_LEASE",
        span("1s", "1h"),
        "30s",
        "how long a claim holds; extended while the job runs",
    )
    poll_interval: timedelta = setting(
        "PGQUEUE_POLL_INTERVAL",
        span("10ms", "1m"),
        "0.5s",
        "an idle worker looks this often, without a working doorbell",
    )
    idle_interval: timedelta = setting(
        "PGQUEUE_IDLE_INTERVAL", span("10ms", "1m"), "2s", "the same, with one"
    )
    doorbell: bool = setting("PGQUEUE_DOORBELL", flag, "on", "wake sleeping workers by NOTIFY")
    shutdown_timeout: timedelta = setting(
        "PGQUEUE_SHUTDOWN_TIMEOUT",
        span("0s", "1h"),
        "20s",
        "how long running jobs may go on after SIGTERM",
    )
    health_port: int | None = setting(
        "PGQUEUE_HEALTH_PORT", number(0, 65535), None, "port of a worker's /healthz and /readyz"
    )
    header_timeout: timedelta = setting(
        "PGQUEUE_HEADER_TIMEOUT",
        span("100ms", "5m"),
        "10s",
        "how long the headers of an HTTP request may take to arrive",
    )
    uvloop: bool = setting("PGQUEUE_UVLOOP", flag, "on", "use uvloop where it is installed")

    # Retention
    keep_completed: timedelta = setting(
        "PGQUEUE_KEEP_COMPLETED", span("1m"), "7d", "completed and cancelled rows stay this long"
    )
    keep_dlq: timedelta = setting("PGQUEUE_KEEP_DLQ", span("1m"), "30d", "dead rows stay this long")
    keep_ids: timedelta = setting(
        "PGQUEUE_KEEP_IDS", span("1m"), "365d", "ids of removed rows stay known this long"
    )
    auto_prune: bool = setting(
        "PGQUEUE_AUTO_PRUNE", flag, "on", "workers remove what is past its time"
    )

    # Logs
    log_level: str = setting(
        "PGQUEUE_LOG_LEVEL", choice("debug", "info", "warning", "error"), "info", "what is logged"
    )
    log_format: Literal["auto", "human", "json"] = setting(
        "PGQUEUE_LOG_FORMAT",
        choice("auto", "human", "json"),
        "auto",
        "auto: for people on a terminal, else JSON",
    )

    warnings: tuple[str, ...] = ()

    @property
    def conninfo(self) -> str:
        """The connection string for libpq. Raises SettingsError without DATABASE_URL."""
        return _libpq("DATABASE_URL", self._required_url(), self.pgbouncer)

    @property
    def direct_conninfo(self) -> str:
        """The connection string that leads past the pooler, where there is one."""
        name = "PGQUEUE_DIRECT_URL" if self.direct_url else "DATABASE_URL"
        return _libpq(name, self.direct_url or self._required_url(), self.direct_is_pooled)

    @property
    def direct_is_pooled(self) -> bool:
        """Whether `direct_conninfo` leads to a pooler: there is one, and no way past it."""
        return self.pgbouncer and not self.direct_url

    def _required_url(self) -> str:
        if not self.database_url:
            raise SettingsError(
                [
                    (
                        "DATABASE_URL is not set: say where Postgres is, as in "
                        "postgresql://user:password@host/database"
                    )
                ]
            )
        return self.database_url

    def __post_init__(self) -> None:
        urls = [url for url in (self.database_url, self.direct_url) if url]
        learn(
            [os.environ.get("PGPASSWORD"), *(one for url in urls for one in passwords_of(url))],
        )

    def with_(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)

    @classmethod
    def translate(cls, environment: Mapping[str, str], values: dict[str, Any]) -> list[str]:
        """Adds to `values` what older names in the environment mean. Returns problems."""
        return []

    def contradictions(self) -> list[str]:
        """Problems with settings that do not go together."""
        problems = []
        if self.keep_ids < max(self.keep_completed, self.keep_dlq):
            problems.append(
                "PGQUEUE_KEEP_IDS may not be shorter than PGQUEUE_KEEP_COMPLETED and "
                "PGQUEUE_KEEP_DLQ"
            )
        if (
            self.pgbouncer
            and not self.direct_url
            and self.database_url
            and schema_of(self.database_url)
        ):
            problems.append(
                "PGQUEUE_PGBOUNCER: ?schema= cannot pass a pooler; set it with ALTER ROLE ... SET "
                "search_path instead"
            )
        return problems

    def overview(self) -> dict[str, str]:
        """More lines for the first part of `pgqueue status`: name and value."""
        return {}

    def obstacles(self) -> dict[str, list[str]]:
        """What keeps processes from starting with these settings, for `pgqueue status --json`: a
        member's name and its problems."""
        return {}


S = TypeVar("S", bound=Settings)


@overload
def settings_from(environment: Mapping[str, str] | None = None) -> Settings: ...


@overload
def settings_from(environment: Mapping[str, str] | None, kind: type[S]) -> S: ...


def settings_from(
    environment: Mapping[str, str] | None = None, kind: type[Settings] = Settings
) -> Settings:
    """Read the environment into settings of that class.

    A secret may come from the file NAME_FILE. Raises SettingsError with all problems.
    """
    environment = os.environ if environment is None else environment
    problems: list[str] = []
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if "name" not in field.metadata:
            continue
        found = lookup(environment, field.metadata, problems)
        if found is None:
            continue
        name, text = found
        try:
            values[field.name] = field.metadata["parse"](text)
        except ValueError as error:
            problems.append(
                f"{name}: {'its value is not usable' if field.metadata['secret'] else error}"
            )
    problems += kind.translate(environment, values)
    warnings = _check_urls(values, problems)
    warnings += strange_names(environment, _names(kind), kind.also_read)
    settings = kind(**values, warnings=tuple(warnings))
    problems += settings.contradictions()
    if problems:
        raise SettingsError(problems)
    return settings


def _check_urls(values: Mapping[str, Any], problems: list[str]) -> list[str]:
    """Adds what is wrong with the database URLs to `problems`; returns warnings."""
    warnings = []
    for key, name in (("database_url", "DATABASE_URL"), ("direct_url", "PGQUEUE_DIRECT_URL")):
        if url := values.get(key):
            try:
                _libpq(name, url, False)
            except SettingsError as error:
                problems += error.problems
                continue
            if ignored := foreign_parameters(url):
                warnings.append(f"ignored in the database URL: {', '.join(ignored)}")
    return warnings


def _libpq(name: str, url: str, pooled: bool) -> str:
    try:
        return libpq_string(url, pooled)
    except ValueError as error:
        raise SettingsError([f"{name}: {error}"]) from None


def _names(kind: type[Settings]) -> dict[str, bool]:
    """Every name that a setting is looked up by -> whether it may come from a file."""
    known = [field.metadata for field in dataclasses.fields(kind) if "name" in field.metadata]
    return {name: one["secret"] for one in known for name in (one["name"], *one["also"])}


def shown(settings: Settings) -> list[tuple[str, str, str]]:
    """(name, value, description) of every setting, for people; secrets are masked."""
    rows = []
    for field in dataclasses.fields(settings):
        if "name" not in field.metadata:
            continue
        value = getattr(settings, field.name)
        if field.metadata["secret"]:
            text = (
                ""
                if not value
                else "(set)"
                if not isinstance(value, tuple)
                else f"({len(value)} set)"
            )
        else:
            text = written(value)
        rows.append((field.metadata["name"], text, field.metadata["doc"]))
    return rows
