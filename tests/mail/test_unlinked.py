"""Text of a caller's in a mail of ours: names stay names, and nothing is a link, an address or a
telephone number."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgqueue_service.notifications.mail.unlinked import unlinked, unlinked_name

from tests.mail.test_render import FIREFOX, html_of, sign_in

NAMES = [
    "Болд",
    "Б.Болд",
    "Ц. Элбэгдорж",
    "Дх.Болд",
    "БОЛД",
    "Б.БОЛД",
    "Бат-Эрдэнэ Дорж",
    "Өлзийжаргалын Энхтуяа",
    "J.R. Smith",
    "St.John",
    "J. R. R. Tolkien",
    "Ts.Elbegdorj",
    "B.Ganbold",
    "Martin Luther King Jr.",
    "Dr. No",
    "O'Brien, Conan",
    "Jean-Luc d'Arc (she/her)",
    "María José",
    "李小龙",
    "محمد",
    "Bold 2nd",
    "👩‍👩‍👧‍👦 family",
    "AC/DC",
    "A.B.",
    "x",
    "..",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(name: str) -> None:
    assert unlinked_name(name, 80) == name
    mail = sign_in(name=name, locale="en")
    assert mail.text.startswith(f"Hello {name}," if name else "Hello,")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Saint.John", "Saint John"),
        ("john.smith", "john smith"),
        ("J.Li", "J. Li"),
        ("T.Co", "T. Co"),
    ],
)
def test_what_a_mail_program_could_take_for_a_domain_is_opened(name: str, shown: str) -> None:
    assert unlinked_name(name, 80) == shown


AGENTS = [
    FIREFOX,
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/126.0.0.0 Safari/537.36"
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, "
        "like Gecko) Version/17.5 Mobile/15E148"
    ),
    "curl/8.5.0",
    "okhttp/4.12.0",
    "Dalvik/2.1.0 (Linux; U; Android 14; SM-S918B Build/UP1A.231005.007)",
    "Unknown",
]


@pytest.mark.parametrize("agent", AGENTS)
def test_browsers_are_shown_as_they_are(agent: str) -> None:
    assert unlinked(agent, 200) == agent


@pytest.mark.parametrize(
    "address",
    ["203.0.113.9", "2001:db8::1", "::1", "::ffff:192.0.2.1", "1.2.3.4, 5.6.7.8", "unknown"],
)
def test_addresses_of_the_network_too(address: str) -> None:
    assert unlinked(address, 80) == address


LINKS = [
    "http://evil.example",
    "HTTPS://EVIL.EXAMPLE/login?x=1",
    "hxxp://evil.example",
    "//evil.example/x",
    "http:/evil",
    "http:\\\\evil.example",
    "(http://evil.example)",
    "<a>http://evil.example</a>",
    "www.evil",
    "WWW.evil.example",
    "evil.com",
    "Evil.Com",
    "EVIL.COM",
    "evil.com.",
    "evil.com,",
    '"evil.com"',
    "evil.com:8080",
    "evil.com/login",
    "evil.photography/login",
    "sub.evil.co.uk",
    "bit.ly/3abc",
    "t.co/x",
    "T.Co/x",
    "xn--80ak6aa92e.com",
    "evil.xn--p1ai",
    "пример.рф",
    "банк.мон",
    "evil。com",
    "evil．com",
    "evil｡com",
    "ev\u200bil.com",
    "evil\u2060.\u2060com",
    "evil.c\u00adom",
    "evil-bank.com",
    "evil_bank.com",
    "1.2.3.4/login",
    "1.2.3.4:80/login",
    "mailto:a@evil.com",
    "a@evil.com",
    "a＠evil.com",
    "tel:99112233",
    "javascript:alert(1)",
    "x,evil.com",
    "x|evil.com|y",
    "[evil.com](evil.com)",
    "Bank:evil.com",
]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("member", ["name", "provider", "ip_address", "user_agent"])
def test_links_are_left_out(link: str, member: str) -> None:
    for text in (link, f"Bat {link}", f"Bat {link} now", f"{link} {link}"):
        mail = sign_in(locale="en", **{member: text})
        for part in (mail.text, html_of(mail)):
            # NFKC, as a mail program reads it; the one address that the mail itself names is the
            # user's.
            read = unicodedata.normalize("NFKC", part).replace("bat@example.com", "")
            assert "evil" not in read.lower(), read
            assert not re.search(
                r"://evil|t\.co|bit\.ly|пример|банк|1\.2\.3\.4|99112233|javascript",
                read,
                re.IGNORECASE,
            ), read
    assert "Bat" in unlinked_name(f"Bat {link} now", 80)


@pytest.mark.parametrize(
    "number", ["99112233", "+976 9911 2233", "(976) 99-11-22-33", "9911–2233", "9.9.1.1.2.2.3.3"]
)
def test_a_name_is_no_telephone_number(number: str) -> None:
    assert not re.search(r"\d", unlinked_name(f"Blocked? Call {number} now", 80))


def test_what_is_long_is_cut() -> None:
    mail = sign_in(
        locale="en",
        name="Your account is blocked " * 8,
        user_agent="Reply with your password " * 20,
    )
    lines = mail.text.splitlines()
    assert len(lines[0]) <= len("Hello ,") + 80
    assert max(map(len, lines)) <= len("Browser: ") + 200


@given(
    st.text(st.sampled_from("ab.Бк /:@-。\u200b12AB"), max_size=40),
    st.sampled_from(["com", "рф", "ly", "xn--p1ai"]),
)
def test_no_domain_that_is_known_comes_through(before: str, top: str) -> None:
    shown = unicodedata.normalize("NFKC", unlinked(f"{before}x.{top}", 200))
    assert not re.search(rf"[\w]\.{top}(?!\w)", shown) or shown.endswith(f" {top}"), shown
    assert "://" not in shown


@given(st.text(max_size=600))
def test_any_text_can_be_shown(text: str) -> None:
    assert len(unlinked_name(text, 80)) <= 80
