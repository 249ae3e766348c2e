"""When a password or a key may leave this process."""

from pgqueue_service.loopback import is_loopback


def may_send_secret(host: str, *, encrypted: bool) -> bool:
    """Over TLS, or to this machine."""
    return encrypted or is_loopback(host)
