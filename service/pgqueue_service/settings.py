"""The settings of the service: what its API, its mails and its demonstration read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, ClassVar

from pgqueue.durations import spoken
from pgqueue.errors import SettingsError
from pgqueue.known_secrets import learn
from pgqueue.settings import Settings
from pgqueue.settings.environment import (
    choice,
    flag,
    limit,
    number,
    setting,
    span,
    text,
    words,
)
from pgqueue_service.tokens import in_both, token_problems


def encryption(value: str) -> bool | str:
    """True: TLS from the first byte; False: not said; or one of the words that say it."""
    word = value.strip().lower()
    if word in ("starttls", "opportunistic", "none"):
        return word
    if word in ("tls", "ssl"):
        return True
    try:
        return flag(word)
    except ValueError:
        raise ValueError(
            f"one of starttls, true, false, opportunistic, none, not {value!r}"
        ) from None


def networks(value: str) -> tuple[str, ...]:
    """From "10.0.0.0/8, ::1": addresses and networks."""
    found = words(value)
    for one in found:
        try:
            ip_network(one)
        except ValueError:
            raise ValueError(
                f'not an address or a network: {one!r} (write "127.0.0.1,10.0.0.0/8")'
            ) from None
    return found


@dataclass(frozen=True, kw_only=True)
class ServiceSettings(Settings):
    """The library's settings and the service's own. Fields that are spans of time are
    timedeltas."""

    also_read: ClassVar[frozenset[str]] = Settings.also_read | {"SMTP_ENABLED"}
    quiet_loggers: ClassVar[tuple[str, ...]] = (
        *Settings.quiet_loggers,
        # These write the addresses of requests, or what is said on the wire.
        "httpx",
        "httpcore",
        "aiosmtplib",
        "mail.log",
    )

    modules: tuple[str, ...] = setting(
        "PGQUEUE_MODULES",
        words,
        "pgqueue_service.notifications",
        "modules with tasks; a worker runs their jobs, the API takes them",
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
    body_timeout: timedelta = setting(
        "PGQUEUE_BODY_TIMEOUT",
        span("100ms", "1h"),
        "30s",
        "how long a request's body may take to arrive",
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

    def __post_init__(self) -> None:
        super().__post_init__()
        learn([*self.admin_tokens, *self.api_tokens])
        learn([self.smtp_password, self.sendgrid_api_key], user=self.smtp_user)

    @classmethod
    def translate(cls, environment: Mapping[str, str], values: dict[str, Any]) -> list[str]:
        # The service that came before this one had a switch: true meant SMTP, false the log.
        enabled = environment.get("SMTP_ENABLED", "").strip()
        if enabled and "mail_transport" not in values:
            try:
                values["mail_transport"] = "smtp" if flag(enabled) else "log"
            except ValueError as error:
                return [f"SMTP_ENABLED: {error}"]
        return []

    def contradictions(self) -> list[str]:
        problems = token_problems("PGQUEUE_ADMIN_TOKENS", self.admin_tokens)
        problems += token_problems("PGQUEUE_API_TOKENS", self.api_tokens)
        problems += in_both(self.admin_tokens, self.api_tokens)
        window = self.signin_limit[1]
        if self.keep_completed < window or self.keep_dlq < window:
            problems.append(
                "PGQUEUE_KEEP_COMPLETED, PGQUEUE_KEEP_DLQ: not shorter than PGQUEUE_SIGNIN_LIMIT's "
                f"window ({spoken(window)})"
            )
        return problems + super().contradictions()

    def overview(self) -> dict[str, str]:
        return {"mail_transport": self.mail_transport or "log"}

    def obstacles(self) -> dict[str, list[str]]:
        return {"mail_problems": transport_problems(self)}


def service_settings(settings: Settings) -> ServiceSettings:
    """The same settings, as the service's tasks and routes need them. Raises SettingsError for
    settings that were not read as ServiceSettings."""
    if isinstance(settings, ServiceSettings):
        return settings
    raise SettingsError(
        [
            "these settings are not ServiceSettings: read them with "
            "settings_from(None, ServiceSettings) of pgqueue_service.settings"
        ]
    )


def transport_problems(settings: ServiceSettings) -> list[str]:
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
