"""When a password or a key may leave this process."""

from ipaddress import ip_address


def may_send_secret(host: str, *, encrypted: bool) -> bool:
    """Over TLS, or to this machine."""
    return encrypted or is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether the name or address can only be this machine's."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
