"""What callers wrote, as a mail may show it: nothing in it is a link, an address or a telephone
number.

Where sign-ins are taken without a token, a stranger's text gets into a mail that bears our name,
and mail programs turn what looks like a domain into a link. Names are left as they are written:
"J.R. Smith", "Б.Болд", "St.John".
"""

import re

# Between letters they are not seen, and hide a word from us that a mail program joins again.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200e\u200f\u2060-\u2064\u206a-\u206f\ufeff\uffa0]"
)
_JOINER = "\u200d"  # but in an emoji it joins, and without it there are two
_DOT = re.compile("[.\u2024\u3002\ufe52\uff0e\uff61]")
_SLASH = re.compile("[/\\\\\u2044\u2215\uff0f]")
_LINK = re.compile(
    r"[:\uff1a][/\\\u2044\u2215\uff0f]|(?:^|[^\w])(?:www\d?[.\u3002\uff0e\uff61]"
    r"|(?:https?|ftps?|mailto|tel|sms|callto|javascript|vbscript|data|file|skype|tg|viber|whatsapp)[:\uff1a])",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[^\s@\uff20][@\uff20][^\s@\uff20]")
_PARTS = re.compile(r"[^\w.\u2024\u3002\ufe52\uff0e\uff61-]+")
_NUMBER_WITH_PATH = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?[/\\]")
_TELEPHONE = re.compile(r"[+(]{0,2}(?:\d[ ().\u2010-\u2015-]{0,3}){6,}")

_TOP = """
com net org info biz name pro mobi app dev xyz top site online shop store club live link click
website space tech cloud page web blog news email support help services service bank money
finance pay login account accounts security secure download zip mov win vip work world today
life fun art icu buzz cyou bond sbs cfd lol wtf ninja agency company group solutions systems
network digital media social chat games game bet casino poker dating sex porn loan credit cash
fit run rest bar men date stream racing party review trade science gdn quest skin hair makeup
beauty autos homes mom pics monster мон рф орг ком нет онлайн сайт бел укр срб мкд бг ею рус
москва дети католик қаз 中国 中國 公司 网络 한국 닷컴 みんな
"""
TOP = frozenset(_TOP.split())
"""The last parts of domains that mail programs know and that are longer than two letters; of two
letters each is a country's."""


def unlinked(text: str, length: int) -> str:
    """One line of at most `length` characters; what is cut ends in an ellipsis. Words that are
    links are left out."""
    seen = _UNSEEN.sub("", text)
    words = [word for word in map(_unlinked_word, seen.split(" ")) if word is not None]
    shown = " ".join(words).strip() if len(words) < len(seen.split(" ")) else " ".join(words)
    return shown if len(shown) <= length else shown[: length - 1].rstrip() + "…"


def unlinked_name(text: str, length: int) -> str:
    """The same for a name, which has no telephone number either."""
    return unlinked(_TELEPHONE.sub("", text), length)


def _unlinked_word(word: str) -> str | None:
    """The word, with its dots opened where they would make a link of a name; None when it is a
    link."""
    bare = word.replace(_JOINER, "")
    if _LINK.search(bare) or _ADDRESS.search(bare) or _NUMBER_WITH_PATH.search(bare):
        return None
    opened = word
    for part in _PARTS.split(bare):
        labels = [label for label in _DOT.split(part.strip("-")) if label]
        if len(labels) < 2 or not _top(labels[-1]):
            continue
        initials = (
            all(len(label) <= 2 and label[0].isupper() for label in labels[:-1])
            and labels[-1][0].isupper()
        )
        path = _SLASH.search(bare, bare.find(part) + len(part)) is not None
        if initials and not path:
            if _known(labels[-1]):
                opened = _DOT.sub(". ", opened)
        elif _known(labels[-1]) or path:
            return None
        else:
            opened = _DOT.sub(" ", opened)
    return opened


def _top(label: str) -> bool:
    return len(label) >= 2 and (label.isalpha() or label.lower().startswith("xn--"))


def _known(label: str) -> bool:
    return len(label) == 2 or label.casefold() in TOP or label.lower().startswith("xn--")
