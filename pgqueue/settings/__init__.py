"""Every setting, typed, from the environment; all that is wrong with it is told at once."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from pgqueue.durations import spoken
from pgqueue.errors import SettingsError
from pgqueue.known_secrets import learn
from pgqueue.settings.conninfo import foreign_parameters, libpq_string, passwords_of, schema_of
from pgqueue.settings.environment import (
    choice,
    encryption,
    flag,
    limit,
    lookup,
    networks,
    number,
    parse_queues,
    setting,
    span,
    text,
    words,
    written,
)  # fmt: skip
from pgqueue.settings.tokens import in_both, token_problems
from pgqueue.settings.unknown_names import strange_names


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the environment says. Fields that are spans of time are timedeltas."""

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
        "PGQUEUE_MODULES",
        words,
        "pgqueue_service.notifications",
        "modules with tasks: what runs, and what the API takes",
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

    # HTTP
    host: str = setting("HOST", text, "127.0.0.1", "address that the API listens on")
    port: int = setting("PORT", number(0, 65535), "3333", "port that the API listens on")
    app: str = setting(
        "PGQUEUE_APP", text, "pgqueue_service.app:create_app", "the application, as module:function"
    )
    request_timeout: timedelta = setting(
        "PGQUEUE_REQUEST_TIMEOUT",
        span("50ms", "1m"),
        "2s",
        "an enqueue that takes longer is answered 503",
    )
    header_timeout: timedelta = setting(
        "PGQUEUE_HEADER_TIMEOUT",
        span("100ms", "5m"),
        "10s",
        "how long a request's headers may take to arrive",
    )
    body_timeout: timedelta = setting(
        "PGQUEUE_BODY_TIMEOUT", span("100ms", "1h"), "30s", "and its body, after them"
    )
    http_connections: int = setting(
        "PGQUEUE_HTTP_CONNECTIONS",
        number(1, 100_000),
        "1000",
        "connections of callers that an API process holds at once",
    )
    drain: timedelta = setting(
        "PGQUEUE_DRAIN", span("0s", "5m"), "1s", "how long the API is unready before it stops"
    )
    admin_tokens: tuple[str, ...] = setting(
        "PGQUEUE_ADMIN_TOKENS",
        words,
        "",
        "tokens that open everything",
        secret=True,
        also=("PGQUEUE_ADMIN_TOKEN",),
    )
    api_tokens: tuple[str, ...] = setting(
        "PGQUEUE_API_TOKENS", words, "", "tokens that open the job routes", secret=True
    )
    allow_anonymous: bool = setting(
        "PGQUEUE_ALLOW_ANONYMOUS",
        flag,
        "off",
        "without API tokens, take sign-ins from other hosts too",
    )
    open: bool = setting(
        "PGQUEUE_OPEN",
        flag,
        "off",
        "every route without a token, on loopback only: for development",
    )
    cors_origins: tuple[str, ...] = setting(
        "PGQUEUE_CORS_ORIGINS", words, "", "origins whose pages may call the API"
    )

    address_limit: tuple[int, timedelta] = setting(
        "PGQUEUE_ADDRESS_LIMIT",
        limit,
        "600/1h",
        "sign-ins that one network address may post without a token",
    )
    trusted_proxies: tuple[str, ...] = setting(
        "PGQUEUE_TRUSTED_PROXIES",
        networks,
        "",
        "networks of proxies whose X-Forwarded-For is believed",
    )

    # Jobs
    signin_limit: tuple[int, timedelta] = setting(
        "PGQUEUE_SIGNIN_LIMIT", limit, "10/1h", "sign-in mails per user"
    )

    # Mail
    mail_transport: str | None = setting(
        "MAIL_TRANSPORT",
        choice("log", "smtp", "sendgrid"),
        None,
        "log, smtp or sendgrid",
    )
    smtp_host: str | None = setting("SMTP_HOST", text, None, "the mail server")
    smtp_port: int = setting("SMTP_PORT", number(1, 65535), "587", "its port")
    smtp_secure: bool | str = setting(
        "SMTP_SECURE",
        encryption,
        "off",
        "true: TLS from the first byte; off: that on port 465, else STARTTLS, demanded unless "
        "the host is loopback; "
        "also starttls, opportunistic (STARTTLS where it is offered), none",
    )
    smtp_user: str | None = setting("SMTP_USER", text, None, "user name at the mail server")
    smtp_password: str | None = setting(
        "SMTP_PASSWORD", str, None, "its password; never sent without TLS", secret=True
    )
    smtp_ca: str | None = setting(
        "PGQUEUE_SMTP_CA", text, None, "file with the mail server's CA, if it is no public one"
    )
    smtp_connections: int = setting(
        "SMTP_CONNECTIONS", number(1, 1000), "4", "connections that a worker keeps to it"
    )
    mail_from: str | None = setting("MAIL_FROM", text, None, "the sender", also=("SMTP_FROM",))
    mail_timeout: timedelta = setting(
        "PGQUEUE_MAIL_TIMEOUT", span("100ms", "1m"), "10s", "patience with each step of sending"
    )
    sendgrid_api_key: str | None = setting(
        "SENDGRID_API_KEY", text, None, "key for SendGrid", secret=True
    )
    sendgrid_from_email: str | None = setting(
        "SENDGRID_FROM_EMAIL", text, None, "the sender, for SendGrid"
    )
    sendgrid_url: str = setting(
        "PGQUEUE_SENDGRID_URL", text, "https://api.sendgrid.com", "where SendGrid's interface is"
    )
    doubtful_mail: str = setting(
        "PGQUEUE_DOUBTFUL_MAIL",
        choice("resend", "hold"),
        "resend",
        (
            "a mail that an attempt before may have sent: resend it, or hold it in the dead-letter "
            "queue"
        ),
    )
    mail_brand: str = setting("MAIL_BRAND", text, "Yellow Books", "the name in the mails")
    mail_locale: str = setting(
        "MAIL_LOCALE", choice("mn", "en"), "mn", "their language, unless the sign-in names one"
    )
    mail_timezone: str = setting(
        "MAIL_TIMEZONE", text, "Asia/Ulaanbaatar", "the time zone of their times"
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
        """What libpq is given. Raises SettingsError without DATABASE_URL."""
        return _libpq("DATABASE_URL", self._required_url(), self.pgbouncer)

    @property
    def direct_conninfo(self) -> str:
        """The same, past the pooler."""
        name = "PGQUEUE_DIRECT_URL" if self.direct_url else "DATABASE_URL"
        return _libpq(name, self.direct_url or self._required_url(), self.direct_is_pooled)

    @property
    def direct_is_pooled(self) -> bool:
        """Whether a pooler is on that way all the same."""
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
            [
                *self.admin_tokens,
                *self.api_tokens,
                *(one for url in urls for one in passwords_of(url)),
            ]
        )
        learn(
            [os.environ.get("PGPASSWORD"), self.smtp_password, self.sendgrid_api_key],
            user=self.smtp_user,
        )

    def with_(self, **changes: Any) -> "Settings":
        return dataclasses.replace(self, **changes)


def settings_from(environment: Mapping[str, str] | None = None) -> Settings:
    """Reads the environment. A secret may come from the file NAME_FILE. Raises SettingsError with
    all problems."""
    environment = os.environ if environment is None else environment
    problems: list[str] = []
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
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
    warnings = _translate_old(environment, values, problems) + strange_names(environment, _names())
    settings = Settings(**values, warnings=tuple(warnings))
    problems += _contradictions(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def _translate_old(
    environment: Mapping[str, str], values: dict[str, Any], problems: list[str]
) -> list[str]:
    """What the old service's environment means here."""
    warnings = []
    enabled = environment.get("SMTP_ENABLED", "").strip()
    if enabled and "mail_transport" not in values:
        try:
            values["mail_transport"] = "smtp" if flag(enabled) else "log"
        except ValueError as error:
            problems.append(f"SMTP_ENABLED: {error}")
    for key in ("database_url", "direct_url"):
        if url := values.get(key):
            try:
                _libpq(
                    "DATABASE_URL" if key == "database_url" else "PGQUEUE_DIRECT_URL", url, False
                )
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


def _names() -> dict[str, bool]:
    """Every name that a setting is looked up by -> whether it may come from a file."""
    known = [field.metadata for field in dataclasses.fields(Settings) if "name" in field.metadata]
    return {name: one["secret"] for one in known for name in (one["name"], *one["also"])}


def _contradictions(settings: Settings) -> list[str]:
    problems = token_problems("PGQUEUE_ADMIN_TOKENS", settings.admin_tokens)
    problems += token_problems("PGQUEUE_API_TOKENS", settings.api_tokens)
    problems += in_both(settings.admin_tokens, settings.api_tokens)
    window = settings.signin_limit[1]
    if settings.keep_completed < window or settings.keep_dlq < window:
        problems.append(
            "PGQUEUE_KEEP_COMPLETED, PGQUEUE_KEEP_DLQ: not shorter than PGQUEUE_SIGNIN_LIMIT's "
            f"window ({spoken(window)})"
        )
    if settings.keep_ids < max(settings.keep_completed, settings.keep_dlq):
        problems.append(
            "PGQUEUE_KEEP_IDS may not be shorter than PGQUEUE_KEEP_COMPLETED and PGQUEUE_KEEP_DLQ"
        )
    if (
        settings.pgbouncer
        and not settings.direct_url
        and settings.database_url
        and schema_of(settings.database_url)
    ):
        problems.append(
            "PGQUEUE_PGBOUNCER: ?schema= cannot pass a pooler; set it with ALTER ROLE ... SET "
            "search_path instead"
        )
    return problems


def transport_problems(settings: Settings) -> list[str]:
    """What a worker that sends mail lacks; empty when it can start."""
    if settings.mail_transport is None:
        for name, value in (
            ("SMTP_HOST", settings.smtp_host),
            ("SENDGRID_API_KEY", settings.sendgrid_api_key),
        ):
            if value:
                return [
                    f"{name} is set but MAIL_TRANSPORT is not: say MAIL_TRANSPORT=smtp or "
                    "sendgrid to send mail, "
                    "or MAIL_TRANSPORT=log to only write it to the log"
                ]
        return []
    problems = []
    if settings.mail_transport == "smtp":
        if not settings.smtp_host:
            problems.append("SMTP_HOST is not set: MAIL_TRANSPORT=smtp needs it")
        if not settings.mail_from:
            problems.append(
                "MAIL_FROM (or SMTP_FROM) is not set: MAIL_TRANSPORT=smtp needs a sender"
            )
        if bool(settings.smtp_user) != bool(settings.smtp_password):
            problems.append("SMTP_USER and SMTP_PASSWORD go together")
    if settings.mail_transport == "sendgrid":
        if not settings.sendgrid_api_key:
            problems.append("SENDGRID_API_KEY is not set: MAIL_TRANSPORT=sendgrid needs it")
        if not (settings.sendgrid_from_email or settings.mail_from):
            problems.append(
                "SENDGRID_FROM_EMAIL (or MAIL_FROM) is not set: MAIL_TRANSPORT=sendgrid needs a "
                "sender"
            )
    return problems


def shown(settings: Settings) -> list[tuple[str, str, str]]:
    """(name, value, what it is) of every setting, for people; secrets are masked."""
    rows = []
    for field in dataclasses.fields(Settings):
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
