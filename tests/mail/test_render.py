"""The mails say what the users know, in their language, and show what others wrote without obeying
it."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgqueue_service.notifications.mail.dates import in_words
from pgqueue_service.notifications.mail.message import Mail
from pgqueue_service.notifications.mail.render import Renderer
from pgqueue_service.settings import ServiceSettings

from pgqueue.errors import SettingsError
from tests.support.mailservers import NOW

RENDERER = Renderer(ServiceSettings(), "example.org")
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"


def sign_in(renderer: Renderer = RENDERER, **changes: Any) -> Mail:
    facts: dict[str, Any] = {
        "job_id": "signin-1",
        "name": "Бат",
        "email": "bat@example.com",
        "provider": "google",
        "ip_address": "203.0.113.9",
        "user_agent": FIREFOX,
        "moment": NOW,
        "locale": "mn",
    }
    return renderer.sign_in(**(facts | changes))


def html_of(mail: Mail) -> str:
    assert mail.html is not None
    return mail.html


class Shown(HTMLParser):
    """What a reader sees of a page, and the tags it is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_mongolian_sign_in_mail_reads_as_the_users_know_it() -> None:
    mail = sign_in()
    assert mail.subject == "🔐 Таны бүртгэлд нэвтэрсэн байна - Yellow Books"
    assert mail.text == (
        "Сайн байна уу Бат,\n"
        "\n"
        "Таны Yellow Books бүртгэлд амжилттай нэвтэрсэн байна.\n"
        "\n"
        "И-мэйл: bat@example.com\n"
        "Нэвтэрсэн хэлбэр: google\n"
        "IP хаяг: 203.0.113.9\n"
        f"Хөтөч: {FIREFOX}\n"
        "Огноо, цаг: 2026 оны арван нэгдүгээр сарын 23, даваа гараг, 18:05 (Улаанбаатарын "
        "цагаар, UTC+8)\n"
        "\n"
        "Хэрэв энэ та биш байсан бол энэ захидалд хариу бичиж, бидэнд даруй мэдэгдэнэ үү.\n"
        "\n"
        "Хүндэтгэсэн,\n"
        "Yellow Books\n"
    )


def test_the_english_sign_in_mail_says_the_same() -> None:
    mail = sign_in(locale="en", name="Bat")
    assert mail.subject == "🔐 New sign-in to your account - Yellow Books"
    assert mail.text == (
        "Hello Bat,\n"
        "\n"
        "You have signed in to your Yellow Books account.\n"
        "\n"
        "Email: bat@example.com\n"
        "Signed in with: google\n"
        "IP address: 203.0.113.9\n"
        f"Browser: {FIREFOX}\n"
        "Date and time: Monday, 23 November 2026, 18:05 (Ulaanbaatar time, UTC+8)\n"
        "\n"
        "If this was not you, write to us at once by replying to this message.\n"
        "\n"
        "Kind regards,\n"
        "Yellow Books\n"
    )


@pytest.mark.parametrize("locale", ["mn", "en"])
def test_the_html_shows_every_line_of_the_text(locale: str) -> None:
    mail = sign_in(locale=locale)
    shown = Shown(html_of(mail)).text
    for line in mail.text.splitlines():
        label, colon, value = line.partition(": ")
        assert label in shown
        assert not colon or value in shown
    assert f'<html lang="{locale}">' in html_of(mail)


@pytest.mark.parametrize("locale", ["mn", "en"])
def test_the_html_loads_and_links_to_nothing(locale: str) -> None:
    page = html_of(sign_in(locale=locale)) + html_of(
        RENDERER.custom(job_id="c", to="a@example.com", subject="s", body="b")
    )
    assert not re.search(r"(?i)https?:|//|url\(|@import|javascript:|cid:", page)
    shown = Shown(page)
    assert not {"script", "img", "link", "a", "iframe", "object", "form"} & set(shown.tags)
    assert not {"src", "href", "background", "action"} & {name for name, _ in shown.attributes}


def test_layout_tables_are_not_read_out_as_tables_and_the_details_are() -> None:
    page = html_of(sign_in())
    assert page.count("<table") == 2
    assert page.count('role="presentation"') == 1
    assert page.count('<th scope="row"') == 5
    assert "prefers-color-scheme: dark" in page
    assert 'name="color-scheme" content="light dark"' in page


@pytest.mark.parametrize("locale", ["mn", "en"])
@pytest.mark.parametrize("member", ["name", "user_agent", "provider", "ip_address"])
def test_markup_in_what_others_wrote_is_shown_and_not_obeyed(member: str, locale: str) -> None:
    hostile = "<script>alert('x')</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"
    changes: dict[str, Any] = {member: hostile, "locale": locale}
    mail = sign_in(**changes)
    shown = Shown(html_of(mail))
    assert not {"script", "img"} & set(shown.tags)
    assert hostile in shown.text
    assert hostile in mail.text


@given(st.text(max_size=60))
def test_no_name_adds_a_tag(name: str) -> None:
    assert Shown(html_of(sign_in(name=name))).tags == Shown(html_of(sign_in())).tags


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (None, "mn"),
        ("", "mn"),
        ("xx", "mn"),
        ("en", "en"),
        ("EN", "en"),
        ("en-GB", "en"),
        ("mn_MN", "mn"),
    ],
)
def test_an_unknown_locale_takes_the_one_of_the_settings(wanted: str | None, got: str) -> None:
    assert RENDERER.locale(wanted) == got
    assert Renderer(ServiceSettings(mail_locale="en"), "example.org").locale("xx") == "en"


def test_brand_and_zone_come_from_the_settings() -> None:
    renderer = Renderer(
        ServiceSettings(mail_brand="A <b> & C", mail_timezone="America/New_York"), "example.org"
    )
    mail = sign_in(renderer, locale="en")
    assert mail.subject.endswith("- A <b> & C")
    assert "A &lt;b&gt; &amp; C" in html_of(mail)
    assert "Monday, 23 November 2026, 05:05 (New York time, UTC-5)" in mail.text


def test_a_zone_that_does_not_exist_and_a_brand_of_two_lines_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as told:
        Renderer(
            ServiceSettings(mail_timezone="Mars/Olympus", mail_brand="a\r\nBcc: b@example.com"),
            "example.org",
        )
    assert [problem.partition(":")[0] for problem in told.value.problems] == [
        "MAIL_TIMEZONE",
        "MAIL_BRAND",
    ]


@pytest.mark.parametrize("zone", ["../etc/passwd", "/etc/passwd", "", "a\x00b"])
def test_a_path_is_no_time_zone(zone: str) -> None:
    with pytest.raises(SettingsError, match="MAIL_TIMEZONE"):
        Renderer(ServiceSettings(mail_timezone=zone), "example.org")


@pytest.mark.parametrize(
    ("zone", "locale", "words"),
    [
        (
            "Asia/Ulaanbaatar",
            "mn",
            "2026 оны нэгдүгээр сарын 1, пүрэв гараг, 08:00 (Улаанбаатарын цагаар, UTC+8)",
        ),
        (
            "Asia/Kathmandu",
            "mn",
            "2026 оны нэгдүгээр сарын 1, пүрэв гараг, 05:45 (Asia/Kathmandu, UTC+5:45)",
        ),
        ("Asia/Kathmandu", "en", "Thursday, 1 January 2026, 05:45 (Kathmandu time, UTC+5:45)"),
        ("UTC", "en", "Thursday, 1 January 2026, 00:00 (UTC, UTC+0)"),
        ("America/St_Johns", "en", "Wednesday, 31 December 2025, 20:30 (St Johns time, UTC-3:30)"),
    ],
)
def test_a_moment_in_words_names_its_zone(zone: str, locale: str, words: str) -> None:
    assert in_words(datetime(2026, 1, 1, tzinfo=UTC), ZoneInfo(zone), locale) == words


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)),
    st.sampled_from(["mn", "en"]),
)
def test_every_moment_has_words(moment: datetime, locale: str) -> None:
    assert str(moment.year) in in_words(moment.replace(tzinfo=UTC), ZoneInfo("UTC"), locale)


def test_a_custom_mail_shows_its_body_as_text_with_its_lines_kept() -> None:
    body = "Hello,\r\n\r\n<b>bold</b> & {{ 7 * 7 }}\n  indented\x00\x07\nhttps://example.com"
    mail = RENDERER.custom(job_id="c-1", to="a@example.com", subject="Subject <b>", body=body)
    assert mail.text == "Hello,\n\n<b>bold</b> & {{ 7 * 7 }}\n  indented\nhttps://example.com\n"
    assert (
        "Hello,<br><br>&lt;b&gt;bold&lt;/b&gt; &amp; {{ 7 * 7 }}<br>  "
        "indented<br>https://example.com"
    ) in html_of(mail)
    assert "<title>Subject &lt;b&gt;</title>" in html_of(mail)
    assert mail.subject == "Subject <b>"
