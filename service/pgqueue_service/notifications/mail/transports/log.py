"""Log-only mode: the mail is written to the log and not sent."""

import logging

from pgqueue.masking import mask
from pgqueue_service.notifications.mail.message import Mail, Sender
from pgqueue_service.notifications.mail.transports.endings import (
    Intend,
    unannounced,
    without_address,
)

RULER = "=" * 72
HEADING = "EMAIL SENT (LOG-ONLY MODE)"

logger = logging.getLogger("pgqueue_service.notifications.mail")


class LogTransport:
    """Prints what would have been sent, the address masked wherever it stands."""

    name = "log"

    def __init__(self, sender: Sender) -> None:
        self.sender = sender

    async def send(self, mail: Mail, intend: Intend = unannounced) -> str:
        printed = (
            f"To: {mail.to}\nSubject: {mail.subject}\nMessage-ID: "
            f"{mail.message_id}\n\n{mail.text.rstrip()}"
        )
        # The mail's own address by itself: the general mask knows addresses by their looks, and
        # misses exotic ones.
        lines = [HEADING, RULER, *mask(without_address(printed, mail.to)).splitlines(), RULER]
        # One argument for each line: a line break within an argument would be no line of ours.
        logger.info("\n".join(["%s"] * len(lines)), *lines, extra={"event": "mail.printed"})
        return "log: printed, not sent"

    async def close(self) -> None:
        """Nothing is kept."""
