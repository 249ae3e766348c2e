"""Names in the environment that look like settings and are none: misspelt, or put there by
Kubernetes."""

import re
from collections.abc import Mapping

from pgqueue.settings.environment import is_link
from pgqueue.suggestions import did_you_mean

BESIDE = frozenset(("PGQUEUE_PG_BINDIR",))
"""Read where they are needed, and no settings."""

_OURS = "PGQUEUE_"
_SHARED = ("SMTP_", "MAIL_", "SENDGRID_", "DATABASE_")
"""Others too may have names that begin so: what is close to a setting is told, and nothing else."""

_OF_A_SERVICE = re.compile(
    r"\w+_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)"
)


def strange_names(environment: Mapping[str, str], known: Mapping[str, bool]) -> list[str]:
    """Warnings, one for each. `known` maps each name of a setting to whether it may come from
    NAME_FILE."""
    names = {*known, *(f"{name}_FILE" for name, in_file in known.items() if in_file)}
    warnings = []
    for name, value in sorted(environment.items()):
        if name in known and is_link(value):
            warnings.append(
                f"{name} is ignored: its value is the address of a service of Kubernetes, put "
                "there because the service is "
                "called so; set enableServiceLinks: false, or give the service another name"
            )
        elif (
            name in names
            or name in BESIDE
            or name == "SMTP_ENABLED"
            or _OF_A_SERVICE.fullmatch(name)
        ):
            continue
        elif name.startswith(_OURS):
            warnings.append(
                f"{name} is no setting and is ignored{did_you_mean(name, names, 0.7, prefix=_OURS)}"
            )
        elif name.startswith(_SHARED) and (meant := did_you_mean(name, names, 0.88)):
            warnings.append(f"{name} is no setting and is ignored{meant}")
    return warnings
