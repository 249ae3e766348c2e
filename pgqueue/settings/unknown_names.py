"""Names in the environment that look like settings and are none: misspelt, or set by Kubernetes."""

import re
from collections.abc import Collection, Mapping

from pgqueue.settings.environment import is_link
from pgqueue.suggestions import did_you_mean

_OURS = "PGQUEUE_"

_OF_A_SERVICE = re.compile(
    r"\w+_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)"
)


def strange_names(
    environment: Mapping[str, str], known: Mapping[str, bool], also_read: Collection[str]
) -> list[str]:
    """Return a warning for each name that looks like a setting and is none.

    `known` maps each name of a setting to whether it may come from NAME_FILE. `also_read`: names
    that are read elsewhere. Other programs may share the beginning of a name that does not start
    with PGQUEUE_: such a name is reported only when it is close to a setting's.
    """
    shared = tuple({f"{name.partition('_')[0]}_" for name in known if "_" in name} - {_OURS})
    names = {*known, *(f"{name}_FILE" for name, in_file in known.items() if in_file)}
    warnings = []
    for name, value in sorted(environment.items()):
        if name in known and is_link(value):
            warnings.append(
                f"{name} is ignored: its value is the address of a service of Kubernetes, put "
                "there because the service is "
                "called so; set enableServiceLinks: false, or give the service another name"
            )
        elif name in names or name in also_read or _OF_A_SERVICE.fullmatch(name):
            continue
        elif name.startswith(_OURS):
            warnings.append(
                f"{name} is no setting and is ignored{did_you_mean(name, names, 0.7, prefix=_OURS)}"
            )
        elif name.startswith(shared) and (meant := did_you_mean(name, names, 0.88)):
            warnings.append(f"{name} is no setting and is ignored{meant}")
    return warnings
