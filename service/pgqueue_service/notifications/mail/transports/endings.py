"""What a network failure means for the job, for every transport."""

import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator

from pgqueue.errors import DependencyDown, Ending, Retry
from pgqueue.masking import clean, mask_address

DEPENDENCY = "mail"
"""The dependency of the mail tasks, which DependencyDown names: one name for every transport."""

Intend = Callable[[], Awaitable[None]]
"""Awaited right before the step after which the other side may have the mail. Raises when the mail
must not be sent any more."""


async def unannounced() -> None:
    """For a mail that is not sent by a job."""


ASIDE = 15.0
"""Seconds; as long as a breaker waits at most between two probes."""

DOUBT = " (the mail may have been sent)"
REPLY_LENGTH = 300
_ABSENT = frozenset(
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY", "EAI_SERVICE")
    if hasattr(socket, name)
)


def broken(message: str) -> DependencyDown:
    """The transport is broken, not the job."""
    return DependencyDown(DEPENDENCY, message)


def forbidden(message: str) -> DependencyDown:
    """The provider refuses this service, and said so about one mail: the breaker opens for a
    shorter time, because only that mail may be refused."""
    return DependencyDown(DEPENDENCY, message, after=ASIDE)


def network_ending(where: str, error: BaseException) -> Ending:
    """A failure on the way to the server, before it said anything that counts.

    A certificate that cannot be trusted, TLS that cannot be agreed on, and a host that does not
    exist (a mistyped name) are no better for the next job: broken. Everything else passes: retry.
    """
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return broken(f"{where}: the certificate is not to be trusted: {cause.verify_message}")
        if isinstance(cause, ssl.SSLError) and not isinstance(
            cause, ssl.SSLEOFError | ssl.SSLZeroReturnError
        ):
            return broken(f"{where}: TLS failed: {cause.reason or cause}")
        if isinstance(cause, socket.gaierror):
            if cause.errno in _ABSENT:
                return broken(f"{where}: the host does not exist: {cause.strerror}")
            return Retry(f"{where}: its name cannot be resolved now: {cause.strerror}")
    return interrupted(where, error)


def interrupted(where: str, error: BaseException, *, uncertain: bool = False) -> Retry:
    """A failure while the mail was sent. uncertain: it is unknown how much of the mail the server
    has; the error says so, because it may be shown in the dead-letter queue."""
    return Retry(f"{where}: {_cause(error)}{DOUBT if uncertain else ''}", uncertain=uncertain)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        # The context too where it is suppressed: httpcore raises "from None" what a certificate led
        # to.
        error = error.__cause__ or error.__context__


def without_address(text: str, address: str) -> str:
    """The text without that address, in upper or lower case."""
    return (
        re.sub(re.escape(address), lambda _: mask_address(address), text, flags=re.IGNORECASE)
        if address
        else text
    )


def quoted(reply: str, address: str) -> str:
    """What a server said, as it may stand in an error: one line, short, no whole address."""
    return clean(without_address(" ".join(reply.split()), address), REPLY_LENGTH)


def _cause(error: BaseException) -> str:
    chain = list(causes(error))
    if any(isinstance(one, TimeoutError) for one in chain):
        return "timed out"
    innermost = chain[-1]
    if isinstance(innermost, OSError) and innermost.strerror:
        return innermost.strerror
    return str(innermost) or type(innermost).__name__
