"""Renders mails from templates: subject, plain text and HTML, in the language of the recipient."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from pgqueue.errors import SettingsError
from pgqueue_service.notifications.mail.dates import in_words
from pgqueue_service.notifications.mail.message import Mail, message_id
from pgqueue_service.notifications.mail.unlinked import unlinked, unlinked_name
from pgqueue_service.settings import ServiceSettings
from pgqueue_service.text import has_control, paragraphs

LOCALES = ("mn", "en")
LONGEST_BRAND = 200
LONGEST_NAME = 80
LONGEST_USER_AGENT = 200
"""Characters that a mail shows of what a caller wrote."""


def template_problems(settings: ServiceSettings) -> list[str]:
    """What is wrong with the settings of the templates."""
    problems = []
    try:
        ZoneInfo(settings.mail_timezone)
    except (OSError, ValueError, LookupError):
        problems.append(f"MAIL_TIMEZONE: no such time zone: {settings.mail_timezone!r}")
    if has_control(settings.mail_brand) or len(settings.mail_brand) > LONGEST_BRAND:
        problems.append(f"MAIL_BRAND: one line of at most {LONGEST_BRAND} characters")
    return problems


class Renderer:
    """The templates, compiled once. `domain` is the sender's, for the message ids.

    Raises SettingsError when the time zone does not exist or the brand cannot stand in a subject.
    """

    def __init__(self, settings: ServiceSettings, domain: str) -> None:
        if problems := template_problems(settings):
            raise SettingsError(problems)
        self._zone = ZoneInfo(settings.mail_timezone)
        self._brand = settings.mail_brand
        self._locale = settings.mail_locale
        self._domain = domain
        self._templates = Environment(
            loader=PackageLoader("pgqueue_service.notifications.mail"),
            autoescape=select_autoescape(["html.j2"], default=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            auto_reload=False,
        )
        # no template of ours uses them, and each rendering would copy them
        self._templates.globals.clear()

    def sign_in(
        self,
        *,
        job_id: str,
        name: str,
        email: str,
        provider: str,
        ip_address: str,
        user_agent: str,
        moment: datetime,
        locale: str | None = None,
    ) -> Mail:
        """The mail about a sign-in at `moment`, an aware datetime. No text of a caller is shown as
        a link. Raises InvalidAddress, a ValueError."""
        locale = self.locale(locale)
        # One file a language: signin.mn.j2 sets the sentences, signin.txt.j2 and signin.html.j2 put
        # them in their places.
        sentences = self._templates.get_template(f"signin.{locale}.j2").make_module(
            {
                "brand": self._brand,
                "name": unlinked_name(name, LONGEST_NAME),
                "email": email,
                "provider": unlinked(provider, LONGEST_NAME),
                "ip_address": unlinked(ip_address, LONGEST_NAME),
                "user_agent": unlinked(user_agent, LONGEST_USER_AGENT),
                "moment": in_words(moment, self._zone, locale),
            }
        )
        words = dict(vars(sentences), brand=self._brand, locale=locale)
        return Mail(
            to=email,
            subject=words["subject"],
            text=self._render("signin.txt.j2", words),
            html=self._render("signin.html.j2", words),
            message_id=message_id(job_id, self._domain),
        )

    def custom(self, *, job_id: str, to: str, subject: str, body: str) -> Mail:
        """The given subject and body. The body is text: markup in it is shown, not rendered. Raises
        ValueError."""
        words = {
            "subject": subject,
            "body": paragraphs(body),
            "brand": self._brand,
            "locale": self._locale,
        }
        return Mail(
            to=to,
            subject=subject,
            text=f"{words['body']}\n",
            html=self._render("custom.html.j2", words),
            message_id=message_id(job_id, self._domain),
        )

    def locale(self, wanted: str | None) -> str:
        """The language that `wanted` asks for ("en", "en-GB"), else that of the settings."""
        language = (wanted or "").replace("_", "-").partition("-")[0].lower()
        return language if language in LOCALES else self._locale

    def _render(self, template: str, words: dict[str, Any]) -> str:
        return self._templates.get_template(template).render(words)
