"""The words by which a mail provider says that it refuses this service, and not one mail.

The texts come from other servers, which may repeat the addresses of users. Addresses are removed
and texts are bounded before the words are searched: the address of a user must not read like a
quota."""

import re

LONGEST = 2_000
"""Characters of a reply that are searched: this bounds the time for any reply."""

# From here on a relay quotes another server's answer.
_QUOTES = re.compile(
    r"\b(?:said|responded|replied|returned):|\bcallout verification failed|\bin reply to\b"
)
_REPEATED = re.compile(r"<[^<>]{0,320}>|\S{0,320}@\S{0,320}|\bhttps?://\S{0,512}")
_CODES = re.compile(r"(?:^|\n)[^\S\n]*#?[245]\.[0-9]{1,3}\.[0-9]{1,3}\b")
_BEYOND_LETTERS = re.compile("[^a-z]")
_EDGES = "\"'`()[]{}<>.,:;"


def bare(text: str, address: str = "") -> str:
    """What the server says in its own words: in lower case and one line, without codes, addresses,
    links, the recipient's domain and what another server said."""
    text = _CODES.sub("\n", text[:LONGEST].lower())
    text = _QUOTES.split(text, maxsplit=1)[0]
    local, _, domain = address.lower().rpartition("@")
    repeated = {domain, local} if _BEYOND_LETTERS.search(local) else {domain}
    return " ".join(
        word for word in _REPEATED.sub(" ", text).split() if word.strip(_EDGES) not in repeated
    )


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


_NO = r"(?:not|never|n't)(?: been| yet| be)?"
_DENIED = (
    rf"(?:denied|disallowed|prohibited|refused|forbidden|unauthori[sz]ed|{_NO} "
    r"(?:permitted|allowed|authori[sz]ed|possible))"
)
_REFUSED = rf"(?:rejected|{_DENIED})"
_STOPPED = (
    r"(?:suspend\w*|disabled|block(?:ed|listed)|deactivat\w+|inactive|not "
    r"active|locked|terminated|expired|restricted|banned|"
    r"black-?listed|under review|on hold|pending|over ?drawn)"
)

# A quota is a bound, that it is passed, and that it is one of sending: not of a mailbox, and not
# the size of a mail.
_BOUND = re.compile(
    r"\b(?:limit\w*|rate|quota|threshold|credits?|allowance|allocation|max(?:imum)?|too "
    r"many|throttl\w+)\b"
)
_PASSED = re.compile(
    r"\b(?:exceed\w*|reached|over|hit|used up|exhausted|too many|limited|throttl\w+)\b"
)
_SENDING = re.compile(
    r"\b(?:send|sends|sending|sender|sent|submissions?|outbound|outgoing|relay\w*|daily|hourly|weekly|monthly|customer|tenant|"
    r"per (?:second|minute|hour|day|week|month)|credits?|throttl\w+|rate.?limit\w*|message "
    r"(?:rate|limit|quota)|you have|you've|"
    r"your (?!message|mail|e-?mail)\w+)\b"
)
_OF_SOMETHING_ELSE = re.compile(
    r"\b(?:receiv\w+|mailbox|inbox|storage|disk|space|size|length|larger?|bytes|big|attachments?|"
    r"tried to reach|"
    r"trying to (?:contact|reach)|connections?|concurrent|hops?|loops?)\b"
)

_US = _any(
    # Relaying
    rf"\brelay\w*\b.{{0,40}}\b{_DENIED}\b",
    rf"\b(?:{_DENIED}|unable|cannot|can't|not|never|no|don't|won't) (?:to |as |an |open )*relay",
    r"\brcpthosts\b",
    # Our address and domain
    rf"\bsender\b.{{0,60}}\b(?:{_REFUSED}|{_STOPPED}|invalid|mismatch|unknown|verif\w+ "
    r"(?:failed|error)|"
    rf"{_NO} (?:accepted|found|recogni[sz]ed|owned|valid)|does not (?:match|exist))",
    r"\b(?:bad|invalid|unknown|blocked|banned|unverified) (?:outbound )?sender\b",
    r"\bsender (?:signature|identity)\b",
    r"\bsend.?as.?denied",
    r"\bsubmission.?quota",
    r"\boutbound.?spam",
    rf"\b(?:from|mail from|originat\w+|domain)\b.{{0,40}}\b{_NO} "
    r"(?:owned|allowed|permitted|authori[sz]ed|registered|verified) "
    r"(?:to send|by|for sending|with|as)\b",
    r"\bnot owned by\b",
    r"\bnot (?:associated|registered) with (?:your|this|the) account\b",
    (
        rf"\b{_NO} (?:allowed|permitted|authori[sz]ed) to (?:(?:send|submit)(?! (?:\w+ "
        rf"){{0,3}}to\b)|use|perform|connect)\b"
    ),
    (
        r"\b(?:not|n't|no|insufficient)(?: have)? (?:the )?(?:permissions?|rights?) to "
        r"(?:send|submit)(?! (?:\w+ ){0,3}to\b)"
    ),
    (
        r"\b(?:spf|dkim|dmarc)\b.{0,60}\b(?:fail\w*|reject\w*|policy|unauth\w+|missing|requir\w+|invalid|"
        r"not? pass\w*)"
    ),
    r"\b(?:fail\w*|does not pass|did not pass|without)\b.{0,40}\b(?:spf|dkim|dmarc)\b",
    # Our account
    rf"\byour\b.{{0,30}}\b(?:account|subscription|plan|domain|ip|server|host|access|service|organi[sz]ation)\b.{{0,60}}"
    rf"\b(?:{_STOPPED}|limited|reputation|{_NO} "
    r"(?:activated|verified|approved|allowed|permitted|authori[sz]ed))",
    r"\bactivate your\b",
    r"\b(?:payment required|unpaid|billing|free accounts?|trial accounts?|upgrade your)\b",
    # Our host
    rf"\bclient host\b.{{0,80}}\b(?:{_REFUSED}|{_STOPPED})",
    r"\b(?:your|sending|source|client|banned) (?:ip|server|host|mail server|network|ip "
    rf"address)\b.{{0,80}}"
    rf"\b(?:{_REFUSED}|{_STOPPED}|listed|reputation)",
    rf"\bip (?:address )?you(?:'re| are) using\b.{{0,60}}\b{_REFUSED}",
    r"\b(?:helo|ehlo)\b.{0,40}\b(?:rejected|denied|refused|invalid)",
    (
        r"\bblocked "
        r"(?:using|by)\b.{0,40}\b(?:spamhaus|spamcop|barracuda|sorbs|rbl|dnsbl|blocklist|blacklist)"
    ),
    r"\b(?:unusual (?:rate|sending|activity)|mail flood|suspicious activity|spam abuse)\b",
)

_LOGIN = _any(
    r"\bauth\w*\b.{0,40}\b(?:required|needed|first|fail\w*|unsuccessful|missing)\b",
    r"\b(?:not|must|need to|requires?|without|please) (?:be )?authenticat\w*",
    r"\bunauthenticated\b",
    r"\b(?:log ?in first|not logged in|must log ?in|invalid credentials)\b",
    r"\b(?:must|please|requires?)\b.{0,40}\b(?:starttls|tls|encryption|encrypted)\b",
    r"\b(?:starttls|tls|encryption)\b.{0,40}\b(?:required|needed|first)\b",
)
_UNVERIFIED = _any(rf"\b{_NO} verified\b", r"\bnot a verified\b", r"\bunverified\b")
_STOPPED_ACCOUNT = re.compile(
    rf"\b(?:account|customer|tenant|subscription|organi[sz]ation)\b.{{0,40}}\b{_STOPPED}"
)

_RECIPIENT = re.compile(r"\b(?:recipients?|rcpt|mailbox\w*|addressee)\b|\bresolver\.")
_MAILBOX = _any(
    _RECIPIENT.pattern,
    r"\b(?:users?|inbox|quota|domains?|dns)\b",
    r"\bgr[ea]y-?list",
    r"\btried to reach\b",
    r"\bhost lookup\b",
)
_SERVER = _any(
    r"\b(?:local|internal|system|server|configuration|database)\b.{0,20}\b(?:problem|error|storage|resources|configuration|failure|busy)",
    (
        r"\b(?:insufficient|not enough|out of|low on) (?:system |disk |free "
        r")*(?:storage|resources|disk|space|memory)\b"
    ),
    r"\bresources\b.{0,20}\bunavailable\b",
    r"\bservice\b.{0,20}\b(?:unavailable|not available|failure)\b",
    r"\b(?:lookup failure|overload\w*|too busy|queue file|shutting down|maintenance|timed? ?out)\b",
)


def about_us(text: str, *, permanent: bool) -> bool:
    """Whether the server says that it refuses all mails of this service. A login that fails for now
    does not count."""
    if (
        _BOUND.search(text)
        and _PASSED.search(text)
        and _SENDING.search(text)
        and not _OF_SOMETHING_ELSE.search(text)
    ):
        return True
    if _US.search(text):
        return True
    if _RECIPIENT.search(text):
        return False
    return _UNVERIFIED.search(text) is not None or (permanent and _LOGIN.search(text) is not None)


def about_us_or_mailbox(text: str) -> bool:
    """An account that is suspended: ours, unless it is known to be the recipient's."""
    return _STOPPED_ACCOUNT.search(text) is not None and not _MAILBOX.search(text)


def names_mailbox(text: str) -> bool:
    """Whether the recipient is what is spoken of, or the usual wait of greylisting."""
    return _MAILBOX.search(text) is not None


def about_server(text: str) -> bool:
    """Whether the server speaks of its own troubles."""
    return _SERVER.search(text) is not None
