"""The mail server of the settings. A worker reports settings that cannot work when it starts, not
at the first mail."""

import re
import ssl
from enum import Enum
from ipaddress import ip_address
from typing import NamedTuple

from pgqueue.errors import SettingsError
from pgqueue_service.loopback import is_loopback
from pgqueue_service.notifications.mail.transports.secrecy import may_send_secret
from pgqueue_service.settings import ServiceSettings

TLS_PORT = 465
"""Where servers speak TLS from the first byte (RFC 8314)."""

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_WITH_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]+):([0-9]{1,5})")
_LONGEST_HOST = 253


class Encryption(Enum):
    """How a connection to the mail server is encrypted."""

    FROM_THE_START = "tls"
    STARTTLS = "starttls"
    """Without it no mail is sent: a host in between can remove the offer from the server's
    reply."""
    WHERE_OFFERED = "opportunistic"
    NEVER = "none"


class Server(NamedTuple):
    host: str
    port: int
    encryption: Encryption
    tls: ssl.SSLContext


def server(settings: ServiceSettings) -> Server:
    """Raises SettingsError with all that is wrong."""
    problems, host = [], ""
    try:
        host = host_name(settings.smtp_host or "")
    except ValueError as error:
        problems.append(f"SMTP_HOST: {error}")
    try:
        tls = ssl.create_default_context(cafile=settings.smtp_ca)
    except OSError as error:
        problems.append(f"PGQUEUE_SMTP_CA: cannot be read: {error.strerror or error}")
    if settings.smtp_port == TLS_PORT and isinstance(settings.smtp_secure, str):
        problems.append(
            f"SMTP_PORT={TLS_PORT} speaks TLS from the first byte, "
            f"SMTP_SECURE={settings.smtp_secure} does not: "
            "write SMTP_SECURE=true, or SMTP_PORT=587"
        )
    encryption = _encryption(settings, host)
    if (
        encryption is Encryption.NEVER
        and settings.smtp_user
        and not may_send_secret(host, encrypted=False)
    ):
        problems.append(
            "SMTP_SECURE=none: a password is not sent without TLS; write SMTP_SECURE=starttls or "
            "true"
        )
    if problems:
        raise SettingsError(problems)
    return Server(host, settings.smtp_port, encryption, tls)


def _encryption(settings: ServiceSettings, host: str) -> Encryption:
    if isinstance(settings.smtp_secure, str):
        return Encryption(settings.smtp_secure)
    if settings.smtp_secure or settings.smtp_port == TLS_PORT:
        return Encryption.FROM_THE_START
    return Encryption.WHERE_OFFERED if is_loopback(host) else Encryption.STARTTLS


def host_name(text: str) -> str:
    """A host name or an IP address, as a connection wants it. Raises ValueError, which never
    repeats what may be a password."""
    text = text.strip()
    if "://" in text:
        raise ValueError(
            "a host name, not a URL: write the host alone, and the rest as SMTP_PORT, "
            "SMTP_SECURE and SMTP_USER"
        )
    if "@" in text:
        raise ValueError("a host name holds no @: write the user as SMTP_USER")
    if found := _WITH_PORT.fullmatch(text):
        raise ValueError(
            f"a host name without its port: write SMTP_HOST={found[1]} and SMTP_PORT={found[2]}"
        )
    address = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ip_address(address)
        return address
    except ValueError:
        pass
    # A name that ends in a dot would not be the one in the server's certificate.
    name = text.removesuffix(".")
    try:
        labels = name.encode("idna").decode("ascii").split(".")
    except UnicodeError:
        labels = [""]
    if len(name) > _LONGEST_HOST or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise ValueError(f"not a host name: {text[:_LONGEST_HOST]!r}")
    return name
