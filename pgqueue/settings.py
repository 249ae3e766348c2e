"""Every setting, typed, from the environment; all that is wrong with it is told at once."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from psycopg import ProgrammingError

from pgqueue.conninfo import foreign_parameters, libpq_string, schema_of
from pgqueue.durations import duration, spoken
from pgqueue.errors import SettingsError


def _text(value: str) -> str:
    return value.strip()


def _flag(value: str) -> bool:
    match value.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError(f'not a yes or no: {value!r} (write "on" or "off")')


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.strip().isdigit() or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}, not {value!r}")
        return int(value)

    return parse


def _span(shortest: str, longest: str = "36500d") -> Callable[[str], timedelta]:
    def parse(value: str) -> timedelta:
        span = duration(value)
        if not duration(shortest) <= span <= duration(longest):
            raise ValueError(f"between {shortest} and {longest}, not {value!r}")
        return span

    return parse


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.strip().lower() not in choices:
            raise ValueError(f"one of {', '.join(choices)}, not {value!r}")
        return value.strip().lower()

    return parse


def _list(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.replace("\n", ",").split(",") if part.strip())


def parse_queues(value: str) -> dict[str, int]:
    """From "default:50,mail:4": how many jobs of each queue a worker runs at once."""
    queues: dict[str, int] = {}
    for part in _list(value):
        name, colon, count = part.rpartition(":")
        if not colon:
            name, count = part, "50"
        if not name or not count.isdigit() or not 1 <= int(count) <= 10_000:
            raise ValueError(f'a queue is NAME:CONCURRENCY with 1 to 10000, not {part!r} (write "default:50,mail:4")')
        if name in queues:
            raise ValueError(f"queue {name} is named twice")
        queues[name] = int(count)
    if not queues:
        raise ValueError("at least one queue")
    return queues


def _limit(value: str) -> tuple[int, timedelta]:
    count, slash, per = value.partition("/")
    if not slash or not count.strip().isdigit() or int(count) < 1 or duration(per) <= timedelta():
        raise ValueError(f'not a limit: {value!r} (write "10/1h": ten in any hour)')
    return int(count), duration(per)


def setting(
    name: str, parse: Callable[[str], Any], default: Any, doc: str, *, secret: bool = False, also: tuple[str, ...] = ()
) -> Any:
    """A field of Settings. `default` is a text, as in the environment, or None; `also` are other names that mean the same."""
    value = None if default is None else parse(default)
    metadata = {"name": name, "parse": parse, "default": default, "doc": doc, "secret": secret, "also": also}
    return dataclasses.field(default_factory=lambda: value, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the environment says. Fields that are spans of time are timedeltas;"""

    # The database
    database_url: str | None = setting("DATABASE_URL", _text, None, "the Postgres database", secret=True)
    direct_url: str | None = setting(
        "PGQUEUE_DIRECT_URL", _text, None, "past the pooler: for leases, doorbell and migrations", secret=True
    )
    pgbouncer: bool = setting("PGQUEUE_PGBOUNCER", _flag, "off", "a transaction pooler is in between: no prepared statements")
    pool_size: int = setting("PGQUEUE_POOL_SIZE", _number(1, 1000), "10", "connections that an API process or a client holds")
    statement_timeout: timedelta = setting(
        "PGQUEUE_STATEMENT_TIMEOUT", _span("100ms", "1h"), "30s", "longest time that one statement of a worker may take"
    )

    # The worker
    queues: dict[str, int] = setting("PGQUEUE_QUEUES", parse_queues, "default:50", "queues of a worker: how many jobs at once")
    modules: tuple[str, ...] = setting("PGQUEUE_MODULES", _list, "service.jobs", "modules whose tasks a worker runs")
    lease: timedelta = setting("PGQUEUE_LEASE", _span("1s", "1h"), "30s", "how long a claim holds; extended while the job runs")
    poll_interval: timedelta = setting(
        "PGQUEUE_POLL_INTERVAL", _span("10ms", "1m"), "0.5s", "an idle worker looks this often, without a working doorbell"
    )
    idle_interval: timedelta = setting("PGQUEUE_IDLE_INTERVAL", _span("10ms", "1m"), "2s", "the same, with one")
    doorbell: bool = setting("PGQUEUE_DOORBELL", _flag, "on", "wake sleeping workers by NOTIFY")
    shutdown_timeout: timedelta = setting(
        "PGQUEUE_SHUTDOWN_TIMEOUT", _span("0s", "1h"), "20s", "how long running jobs may go on after SIGTERM"
    )
    health_port: int | None = setting("PGQUEUE_HEALTH_PORT", _number(0, 65535), None, "port of a worker's /healthz and /readyz")
    uvloop: bool = setting("PGQUEUE_UVLOOP", _flag, "on", "use uvloop where it is installed")

    # Retention
    keep_completed: timedelta = setting(
        "PGQUEUE_KEEP_COMPLETED", _span("1m"), "7d", "completed and cancelled rows stay this long"
    )
    keep_dlq: timedelta = setting("PGQUEUE_KEEP_DLQ", _span("1m"), "30d", "dead rows stay this long")
    keep_ids: timedelta = setting("PGQUEUE_KEEP_IDS", _span("1m"), "365d", "ids of removed rows stay known this long")
    auto_prune: bool = setting("PGQUEUE_AUTO_PRUNE", _flag, "on", "workers remove what is past its time")

    # HTTP
    host: str = setting("HOST", _text, "127.0.0.1", "address that the API listens on")
    port: int = setting("PORT", _number(0, 65535), "3333", "port that the API listens on")
    app: str = setting("PGQUEUE_APP", _text, "service.app:create_app", "the application, as module:function")
    request_timeout: timedelta = setting(
        "PGQUEUE_REQUEST_TIMEOUT", _span("50ms", "1m"), "2s", "an enqueue that takes longer is answered 503"
    )
    drain: timedelta = setting("PGQUEUE_DRAIN", _span("0s", "5m"), "1s", "how long the API is unready before it stops")
    admin_tokens: tuple[str, ...] = setting(
        "PGQUEUE_ADMIN_TOKENS", _list, "", "tokens that open everything", secret=True, also=("PGQUEUE_ADMIN_TOKEN",)
    )
    api_tokens: tuple[str, ...] = setting("PGQUEUE_API_TOKENS", _list, "", "tokens that open the job routes", secret=True)
    allow_anonymous: bool = setting(
        "PGQUEUE_ALLOW_ANONYMOUS", _flag, "off", "without API tokens, take sign-ins from other hosts too"
    )
    open: bool = setting("PGQUEUE_OPEN", _flag, "off", "every route without a token, on loopback only: for development")
    cors_origins: tuple[str, ...] = setting("PGQUEUE_CORS_ORIGINS", _list, "", "origins whose pages may call the API")

    # Jobs
    signin_limit: tuple[int, timedelta] = setting("PGQUEUE_SIGNIN_LIMIT", _limit, "10/1h", "sign-in mails per user")

    # Mail
    mail_transport: str | None = setting(
        "MAIL_TRANSPORT",
        _choice("log", "smtp", "sendgrid"),
        None,
        "log, smtp or sendgrid",
    )
    smtp_host: str | None = setting("SMTP_HOST", _text, None, "the mail server")
    smtp_port: int = setting("SMTP_PORT", _number(1, 65535), "587", "its port")
    smtp_secure: bool = setting("SMTP_SECURE", _flag, "off", "TLS from the first byte; off: STARTTLS where it is offered")
    smtp_user: str | None = setting("SMTP_USER", _text, None, "user name at the mail server")
    smtp_password: str | None = setting("SMTP_PASSWORD", str, None, "its password; never sent without TLS", secret=True)
    smtp_ca: str | None = setting("PGQUEUE_SMTP_CA", _text, None, "file with the mail server's CA, if it is no public one")
    smtp_connections: int = setting("SMTP_CONNECTIONS", _number(1, 1000), "4", "connections that a worker keeps to it")
    mail_from: str | None = setting("MAIL_FROM", _text, None, "the sender", also=("SMTP_FROM",))
    mail_timeout: timedelta = setting("PGQUEUE_MAIL_TIMEOUT", _span("100ms", "1m"), "10s", "patience with each step of sending")
    sendgrid_api_key: str | None = setting("SENDGRID_API_KEY", _text, None, "key for SendGrid", secret=True)
    sendgrid_from_email: str | None = setting("SENDGRID_FROM_EMAIL", _text, None, "the sender, for SendGrid")
    sendgrid_url: str = setting("PGQUEUE_SENDGRID_URL", _text, "https://api.sendgrid.com", "where SendGrid's interface is")
    mail_brand: str = setting("MAIL_BRAND", _text, "Yellow Books", "the name in the mails")
    mail_locale: str = setting("MAIL_LOCALE", _choice("mn", "en"), "mn", "their language, unless the sign-in names one")
    mail_timezone: str = setting("MAIL_TIMEZONE", _text, "Asia/Ulaanbaatar", "the time zone of their times")

    # Logs
    log_level: str = setting("PGQUEUE_LOG_LEVEL", _choice("debug", "info", "warning", "error"), "info", "what is logged")
    log_format: str = setting(
        "PGQUEUE_LOG_FORMAT", _choice("auto", "human", "json"), "auto", "auto: for people on a terminal, else JSON"
    )

    warnings: tuple[str, ...] = ()

    @property
    def conninfo(self) -> str:
        """What libpq is given. Raises SettingsError without DATABASE_URL."""
        return libpq_string(self._required_url(), self.pgbouncer)

    @property
    def direct_conninfo(self) -> str:
        """The same, past the pooler."""
        return libpq_string(self.direct_url or self._required_url(), self.pgbouncer and not self.direct_url)

    def _required_url(self) -> str:
        if not self.database_url:
            raise SettingsError(
                ["DATABASE_URL is not set: say where Postgres is, as in postgresql://user:password@host/database"]
            )
        return self.database_url

    def with_(self, **changes: Any) -> "Settings":
        return dataclasses.replace(self, **changes)


def settings_from(environment: Mapping[str, str] | None = None) -> Settings:
    """Reads the environment. A secret may come from the file NAME_FILE. Raises SettingsError with all problems."""
    environment = os.environ if environment is None else environment
    problems: list[str] = []
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        if "name" not in field.metadata:
            continue
        found = _lookup(environment, field.metadata, problems)
        if found is None:
            continue
        name, text = found
        try:
            values[field.name] = field.metadata["parse"](text)
        except ValueError as error:
            problems.append(f"{name}: {'its value is not usable' if field.metadata['secret'] else error}")
    warnings = _translate_old(environment, values, problems)
    settings = Settings(**values, warnings=tuple(warnings))
    problems += _contradictions(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def _lookup(environment: Mapping[str, str], metadata: Mapping[str, Any], problems: list[str]) -> tuple[str, str] | None:
    texts = []
    for name in (metadata["name"], *metadata["also"]):
        text = environment.get(name)
        path = environment.get(f"{name}_FILE") if metadata["secret"] else None
        if path and not text:
            try:
                text = Path(path).read_text().strip()
            except (OSError, UnicodeError) as error:
                problems.append(f"{name}_FILE: cannot be read: {type(error).__name__}")
        if text and text.strip():
            texts.append((name, text))
    if not texts:
        return None
    if metadata["parse"] is _list:
        return texts[0][0], ",".join(text for _, text in texts)
    return texts[0]


def _translate_old(environment: Mapping[str, str], values: dict[str, Any], problems: list[str]) -> list[str]:
    """What the old service's environment means here."""
    warnings = []
    enabled = environment.get("SMTP_ENABLED", "").strip()
    if enabled and "mail_transport" not in values:
        try:
            values["mail_transport"] = "smtp" if _flag(enabled) else "log"
        except ValueError as error:
            problems.append(f"SMTP_ENABLED: {error}")
    for key in ("database_url", "direct_url"):
        if url := values.get(key):
            try:
                ignored = foreign_parameters(url)
                libpq_string(url, False)
            except (ValueError, ProgrammingError):
                problems.append(f"{'DATABASE_URL' if key == 'database_url' else 'PGQUEUE_DIRECT_URL'}: not a Postgres URL")
                continue
            if ignored:
                warnings.append(f"ignored in the database URL: {', '.join(ignored)}")
    return warnings


def _contradictions(settings: Settings) -> list[str]:
    problems = []
    window = settings.signin_limit[1]
    if settings.keep_completed < window or settings.keep_dlq < window:
        problems.append(
            f"PGQUEUE_KEEP_COMPLETED, PGQUEUE_KEEP_DLQ: not shorter than PGQUEUE_SIGNIN_LIMIT's window ({spoken(window)})"
        )
    if settings.keep_ids < max(settings.keep_completed, settings.keep_dlq):
        problems.append("PGQUEUE_KEEP_IDS may not be shorter than PGQUEUE_KEEP_COMPLETED and PGQUEUE_KEEP_DLQ")
    if settings.pgbouncer and not settings.direct_url and settings.database_url and schema_of(settings.database_url):
        problems.append("PGQUEUE_PGBOUNCER: ?schema= cannot pass a pooler; set it with ALTER ROLE ... SET search_path instead")
    return problems


def transport_problems(settings: Settings) -> list[str]:
    """What a worker that sends mail lacks; empty when it can start."""
    if settings.mail_transport is None:
        for name, value in (("SMTP_HOST", settings.smtp_host), ("SENDGRID_API_KEY", settings.sendgrid_api_key)):
            if value:
                return [
                    f"{name} is set but MAIL_TRANSPORT is not: say MAIL_TRANSPORT=smtp or sendgrid to send mail, "
                    "or MAIL_TRANSPORT=log to only write it to the log"
                ]
        return []
    problems = []
    if settings.mail_transport == "smtp":
        if not settings.smtp_host:
            problems.append("SMTP_HOST is not set: MAIL_TRANSPORT=smtp needs it")
        if not settings.mail_from:
            problems.append("MAIL_FROM (or SMTP_FROM) is not set: MAIL_TRANSPORT=smtp needs a sender")
        if bool(settings.smtp_user) != bool(settings.smtp_password):
            problems.append("SMTP_USER and SMTP_PASSWORD go together")
    if settings.mail_transport == "sendgrid":
        if not settings.sendgrid_api_key:
            problems.append("SENDGRID_API_KEY is not set: MAIL_TRANSPORT=sendgrid needs it")
        if not (settings.sendgrid_from_email or settings.mail_from):
            problems.append("SENDGRID_FROM_EMAIL (or MAIL_FROM) is not set: MAIL_TRANSPORT=sendgrid needs a sender")
    return problems


def shown(settings: Settings) -> list[tuple[str, str, str]]:
    """(name, value, what it is) of every setting, for people; secrets are masked."""
    rows = []
    for field in dataclasses.fields(Settings):
        if "name" not in field.metadata:
            continue
        value = getattr(settings, field.name)
        if field.metadata["secret"]:
            text = "" if not value else "(set)" if not isinstance(value, tuple) else f"({len(value)} set)"
        else:
            text = _written(value)
        rows.append((field.metadata["name"], text, field.metadata["doc"]))
    return rows


def _written(value: Any) -> str:
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
