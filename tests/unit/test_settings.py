"""The environment: typed, complete, every mistake told at once, no secret shown."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgqueue_service.settings import ServiceSettings, transport_problems
from psycopg.conninfo import conninfo_to_dict

from pgqueue.errors import SettingsError
from pgqueue.settings import settings_from, shown

URL = "postgresql://bob:hunter2@db.internal:5433/app"


def problems(**environment: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        settings_from(environment, ServiceSettings)
    return refused.value.problems


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = settings_from({}, ServiceSettings)
    assert (settings.host, settings.port, settings.queues, settings.modules) == (
        "127.0.0.1",
        3333,
        {"default": 50},
        ("pgqueue_service.notifications",),
    )
    assert (settings.lease, settings.poll_interval, settings.idle_interval) == (
        timedelta(seconds=30),
        timedelta(seconds=0.5),
        timedelta(seconds=2),
    )
    assert (settings.keep_completed, settings.keep_dlq, settings.keep_ids) == (
        timedelta(days=7),
        timedelta(days=30),
        timedelta(days=365),
    )
    assert settings.signin_limit == (10, timedelta(hours=1))
    assert (settings.mail_brand, settings.mail_locale, settings.mail_timezone) == (
        "Yellow Books",
        "mn",
        "Asia/Ulaanbaatar",
    )
    assert settings == ServiceSettings()


def test_every_mistake_is_told_at_once() -> None:
    told = problems(
        PORT="http",
        PGQUEUE_LEASE="soon",
        PGQUEUE_DOORBELL="maybe",
        PGQUEUE_QUEUES="a:0",
        PGQUEUE_SIGNIN_LIMIT="ten",
    )
    assert [sentence.split(":")[0] for sentence in sorted(told)] == [
        "PGQUEUE_DOORBELL", "PGQUEUE_LEASE", "PGQUEUE_QUEUES", "PGQUEUE_SIGNIN_LIMIT", "PORT",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("PGQUEUE_LEASE", "90", "lease", timedelta(seconds=90)),
        ("PGQUEUE_LEASE", "1500ms", "lease", timedelta(seconds=1.5)),
        ("PGQUEUE_KEEP_COMPLETED", "14d", "keep_completed", timedelta(days=14)),
        ("PGQUEUE_QUEUES", "default:5, mail:2", "queues", {"default": 5, "mail": 2}),
        ("PGQUEUE_QUEUES", "mail", "queues", {"mail": 50}),
        ("PGQUEUE_PGBOUNCER", "TRUE", "pgbouncer", True),
        ("PGQUEUE_SIGNIN_LIMIT", "3/10m", "signin_limit", (3, timedelta(minutes=10))),
        ("PGQUEUE_MODULES", "a.b,c", "modules", ("a.b", "c")),
        ("SMTP_ENABLED", "true", "mail_transport", "smtp"),
        ("SMTP_ENABLED", "false", "mail_transport", "log"),
        ("SMTP_FROM", "a@example.com", "mail_from", "a@example.com"),
        (
            "PGQUEUE_ADMIN_TOKENS",
            "4c1f0e6d9b,2a8375ffe0",
            "admin_tokens",
            ("4c1f0e6d9b", "2a8375ffe0"),
        ),
        ("PGQUEUE_ADMIN_TOKEN", "4c1f0e6d9b", "admin_tokens", ("4c1f0e6d9b",)),
        ("PORT", " ", "port", 3333),
    ],
)
def test_how_values_are_written(name: str, text: str, field: str, value: object) -> None:
    assert getattr(settings_from({name: text}, ServiceSettings), field) == value


def test_both_names_of_the_admin_tokens_count() -> None:
    both = {"PGQUEUE_ADMIN_TOKENS": "new-4c1f0e6d", "PGQUEUE_ADMIN_TOKEN": "old-2a8375ff"}
    assert settings_from(both, ServiceSettings).admin_tokens == ("new-4c1f0e6d", "old-2a8375ff")


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret-4c1f\n")
    assert settings_from(
        {"PGQUEUE_API_TOKENS_FILE": str(tmp_path / "token")}, ServiceSettings
    ).api_tokens == ("s3cret-4c1f",)
    (said,) = problems(SMTP_PASSWORD_FILE=str(tmp_path / "none"))
    assert said == "SMTP_PASSWORD_FILE: cannot be read: FileNotFoundError"


def test_no_secret_is_ever_shown() -> None:
    settings = settings_from(
        {"DATABASE_URL": URL, "PGQUEUE_DIRECT_URL": URL, "SMTP_PASSWORD": "hunter2",
            "SENDGRID_API_KEY": "SG.hunter2",
         "PGQUEUE_ADMIN_TOKENS": "hunter2-one,hunter2-two"}, ServiceSettings)  # fmt: skip
    rows = {name: value for name, value, _ in shown(settings)}
    assert "hunter2" not in str(rows)
    assert rows["DATABASE_URL"] == rows["SMTP_PASSWORD"] == "(set)"
    assert rows["PGQUEUE_ADMIN_TOKENS"] == "(2 set)"
    (said,) = problems(DATABASE_URL="mysql://bob:hunter2@db/x")
    assert "hunter2" not in said


def test_prisma_s_parameters_are_ignored_with_a_warning_and_its_schema_is_the_search_path() -> None:
    settings = settings_from(
        {"DATABASE_URL": f"{URL}?schema=old+app&connection_limit=5&pgbouncer=true&sslmode=prefer"},
        ServiceSettings,
    )
    given = conninfo_to_dict(settings.conninfo)
    assert given["options"] == '-c search_path="old\\ app"'
    assert (given["host"], given["port"], given["sslmode"]) == ("db.internal", "5433", "prefer")
    assert settings.warnings == ("ignored in the database URL: connection_limit, pgbouncer",)


def test_dead_peers_are_noticed() -> None:
    given = conninfo_to_dict(settings_from({"DATABASE_URL": URL}, ServiceSettings).conninfo)
    assert given["tcp_user_timeout"] == "20000"
    assert given["keepalives_idle"] == "10"
    assert (
        conninfo_to_dict(
            settings_from({"DATABASE_URL": f"{URL}?connect_timeout=2"}, ServiceSettings).conninfo
        )["connect_timeout"]
        == "2"
    )


def test_without_a_database_the_error_says_what_to_set() -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL is not set: say where Postgres is"):
        _ = settings_from({}, ServiceSettings).conninfo


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PGQUEUE_KEEP_COMPLETED": "30m"}, "not shorter than PGQUEUE_SIGNIN_LIMIT's window (1h)"),
        ({"PGQUEUE_KEEP_IDS": "1d"}, "PGQUEUE_KEEP_IDS may not be shorter"),
        (
            {"PGQUEUE_PGBOUNCER": "on", "DATABASE_URL": f"{URL}?schema=x"},
            "?schema= cannot pass a pooler",
        ),
    ],
)
def test_settings_that_contradict_each_other(environment: dict[str, str], sentence: str) -> None:
    assert any(sentence in said for said in problems(**environment))


BLANK = ["", " ", "\n", ",", " , ,\n"]
SECRETS = [
    "PGQUEUE_ADMIN_TOKENS",
    "PGQUEUE_ADMIN_TOKEN",
    "PGQUEUE_API_TOKENS",
    "SMTP_PASSWORD",
    "SENDGRID_API_KEY",
]


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("blank", BLANK)
def test_an_empty_secret_is_a_mistake_and_opens_nothing(
    tmp_path: Path, name: str, blank: str
) -> None:
    (tmp_path / "secret").write_text(blank)
    (said,) = problems(**{f"{name}_FILE": str(tmp_path / "secret")})
    assert said == f"{name}_FILE is empty: give it a value, or do not set it"
    (said,) = problems(**{name: blank})
    assert said == f"{name} is empty: give it a value, or do not set it"
    (said,) = problems(**{f"{name}_FILE": ""})
    assert "is empty" in said


@pytest.mark.parametrize("name", ["PGQUEUE_ADMIN_TOKENS", "PGQUEUE_API_TOKENS"])
@pytest.mark.parametrize(
    "token",
    ["REPLACE-ME", "replace_me_please", "changeme1234", "your-token-here", "<token>-of-admin",
     "my-admin-token-1", "password123",
     "a", "brief", "a" * 40, "abababababababab", "with a space in it"],
)  # fmt: skip
def test_a_token_that_anybody_guesses_is_refused_and_not_repeated(name: str, token: str) -> None:
    for value in (token, f"4c1f0e6d9b2a8375,{token}"):
        (said,) = problems(**{name: value})
        assert said.startswith(f"{name}: ")
        assert len(token) < 3 or token not in said


def test_tokens_that_are_made_by_chance_are_taken() -> None:
    for token in (
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "q7Hk-29s_Zx1LmPq",
        "b6b5d9e2-4c1f-4a0e",
    ):
        assert settings_from({"PGQUEUE_ADMIN_TOKENS": token}, ServiceSettings).admin_tokens == (
            token,
        )


def test_one_token_has_one_level_and_is_one() -> None:
    both = problems(
        PGQUEUE_ADMIN_TOKENS="4c1f0e6d9b2a8375,a", PGQUEUE_API_TOKENS="x,4c1f0e6d9b2a8375"
    )
    assert any("share a token" in said for said in both)
    assert any(
        "twice" in said for said in problems(PGQUEUE_API_TOKENS="4c1f0e6d9b2a8375,4c1f0e6d9b2a8375")
    )
    (said,) = problems(PGQUEUE_ADMIN_TOKEN="4c1f0e6d9b2a8375,9b2a83754c1f0e6d")
    assert said == (
        "PGQUEUE_ADMIN_TOKEN is one token and holds no comma or line break: lists are for "
        "PGQUEUE_ADMIN_TOKENS"
    )


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r", "\n\n"])
def test_a_secret_loses_line_ends_and_a_byte_order_mark_and_keeps_its_blanks(
    tmp_path: Path, ends: str
) -> None:
    (tmp_path / "secret").write_bytes(("\ufeff pass word " + ends).encode())
    assert (
        settings_from(
            {"SMTP_PASSWORD_FILE": str(tmp_path / "secret")}, ServiceSettings
        ).smtp_password
        == " pass word "
    )
    assert (
        settings_from({"SMTP_PASSWORD": f" pass word {ends}"}, ServiceSettings).smtp_password
        == " pass word "
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [("PGQUEUE_LEESE", "PGQUEUE_LEASE"), ("PGQUEUE_POLL_INTERVALL", "PGQUEUE_POLL_INTERVAL"),
     ("PGQUEUE_SMTP_PASSWORD", "SMTP_PASSWORD"), ("SMTP_PASWORD", "SMTP_PASSWORD"),
      ("PGQUEUE_API_TOKEN", "PGQUEUE_API_TOKENS"),
     ("PGQUEUE_FROBNICATE", None), ("PGQUEUE_QUEUE", "PGQUEUE_QUEUES")],
)  # fmt: skip
def test_a_misspelt_name_is_told_at_the_start(name: str, meant: str | None) -> None:
    (said,) = settings_from({name: "1"}, ServiceSettings).warnings
    assert said == f"{name} is no setting and is ignored" + (
        f": did you mean {meant}?" if meant else ""
    )


def test_names_of_others_are_left_alone() -> None:
    others = {"SMTP_ENABLED": "false", "MAIL_HOST": "x", "PGQUEUE_PG_BINDIR": "/x", "HOME": "/"}
    assert settings_from(others, ServiceSettings).warnings == ()


def test_service_links_of_kubernetes_stop_nothing_and_are_told() -> None:
    links = {
        "PORT": "tcp://10.0.0.1:80", "SMTP_PORT": "tcp://10.0.0.1:25", "SMTP_PORT_25_TCP": "tcp://10.0.0.1:25",
        "SMTP_PORT_25_TCP_ADDR": "10.0.0.1", "SMTP_SERVICE_HOST": "10.0.0.1", "PGQUEUE_PORT": "tcp://10.0.0.1:3333",
        "PGQUEUE_SERVICE_PORT": "3333", "PGQUEUE_HEALTH_PORT": "tcp://10.0.0.1:8080",
        "PGQUEUE_PORT_3333_TCP_PROTO": "tcp",
    }  # fmt: skip
    settings = settings_from(links, ServiceSettings)
    assert (settings.port, settings.smtp_port, settings.health_port) == (3333, 587, None)
    assert [said.split()[0] for said in settings.warnings] == [
        "PGQUEUE_HEALTH_PORT",
        "PORT",
        "SMTP_PORT",
    ]


PASSWORDS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x4FF, exclude_categories=["Cs", "Cc"]),
    min_size=5,
    max_size=20,
)


@given(PASSWORDS.filter(lambda password: not set(password) & set("@/%")))
def test_a_password_is_what_libpq_reads(password: str) -> None:
    url = f"postgresql://bob:{password}@db.internal:5433/app?schema=x&connection_limit=5"
    mine = conninfo_to_dict(settings_from({"DATABASE_URL": url}, ServiceSettings).conninfo)
    assert mine["password"] == conninfo_to_dict(url.partition("?schema=")[0]).get("password")
    assert (mine["host"], mine["dbname"]) == ("db.internal", "app")


@given(PASSWORDS, st.sampled_from("@/%"), PASSWORDS)
def test_a_password_that_breaks_the_url_is_refused_and_never_shown(
    first: str, breaking: str, last: str
) -> None:
    first, last = (
        f"z{one.translate(dict.fromkeys(map(ord, '@/%')))}hidden" for one in (first, last)
    )
    url = f"postgresql://bob:{first}{breaking}{last}@db.internal:5433/app"
    with pytest.raises(SettingsError) as refused:
        settings_from({"DATABASE_URL": url}, ServiceSettings)
    assert first not in str(refused.value)
    assert last not in str(refused.value)


@given(PASSWORDS)
def test_a_password_that_is_percent_encoded_is_any_text(password: str) -> None:
    url = f"postgresql://bob:{quote(password, safe='')}@db.internal/app"
    assert (
        conninfo_to_dict(settings_from({"DATABASE_URL": url}, ServiceSettings).conninfo)["password"]
        == password
    )
    assert settings_from(
        {"DATABASE_URL": f"{url}?password={quote(password, safe='')}"}, ServiceSettings
    ).conninfo


@pytest.mark.parametrize(
    "url",
    ["postgresql://", "postgresql:///app", "postgresql:///app?host=/run/postgresql", "postgresql://%2Frun%2Fpostgresql/app",
     "postgresql://a:1,b:2/app?target_session_attrs=read-write",
     "postgres://bob@/app?host=a,b&port=1,2", "service=mine",
     "postgresql://?service=mine", "postgresql://h/app?options=-c%20geqo%3Doff",
     "host=h password='a b://c' dbname=app",
     "postgresql://[::1]:5433/app", "postgresql://h/app?application_name=a%2Bb+c", "postgresql://bob:a?b#c@h/app"],
)  # fmt: skip
def test_what_libpq_takes_is_taken_as_it_stands(url: str) -> None:
    mine = conninfo_to_dict(settings_from({"DATABASE_URL": url}, ServiceSettings).conninfo)
    given = conninfo_to_dict(url)
    assert {key: mine[key] for key in given} == given


@pytest.mark.parametrize(
    "url",
    ["mysql://bob:hunter2@db/x", "postgresql+psycopg://bob:hunter2@db/x", "postgresql://bob:x@hunter2@db/x",
     "postgresql://bob:1/hunter2@db/x", "postgresql://bob:hunter2/1@db/x",
     "postgresql://bob:hunter2%zz@db/x", "hunter2",
     "host=db hunter2", "postgresql://bob:hunter2@db:port/x"],
)  # fmt: skip
def test_a_url_that_cannot_be_right_is_refused_without_its_words(url: str) -> None:
    for name in ("DATABASE_URL", "PGQUEUE_DIRECT_URL"):
        (said,) = problems(**{name: url})
        assert said.startswith(f"{name}: ")
        assert "hunter2" not in said
    with pytest.raises(SettingsError) as refused:
        _ = ServiceSettings(database_url=url).conninfo
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, None),
        ({"SMTP_HOST": "mail"}, "SMTP_HOST is set but MAIL_TRANSPORT is not"),
        ({"SENDGRID_API_KEY": "k"}, "SENDGRID_API_KEY is set but MAIL_TRANSPORT is not"),
        ({"SMTP_HOST": "mail", "MAIL_TRANSPORT": "log"}, None),
        ({"MAIL_TRANSPORT": "smtp", "MAIL_FROM": "a@b.mn"}, "SMTP_HOST is not set"),
        ({"MAIL_TRANSPORT": "smtp", "SMTP_HOST": "mail"}, "MAIL_FROM (or SMTP_FROM) is not set"),
        (
            {
                "MAIL_TRANSPORT": "smtp",
                "SMTP_HOST": "mail",
                "MAIL_FROM": "a@b.mn",
                "SMTP_USER": "u",
            },
            "go together",
        ),
        ({"MAIL_TRANSPORT": "sendgrid", "MAIL_FROM": "a@b.mn"}, "SENDGRID_API_KEY is not set"),
        (
            {
                "MAIL_TRANSPORT": "sendgrid",
                "SENDGRID_API_KEY": "k",
                "SENDGRID_FROM_EMAIL": "a@b.mn",
            },
            None,
        ),
    ],
)
def test_what_a_worker_that_sends_mail_lacks(
    environment: dict[str, str], sentence: str | None
) -> None:
    told = transport_problems(settings_from(environment, ServiceSettings))
    assert (told == []) if sentence is None else any(sentence in said for said in told)
