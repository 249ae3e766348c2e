"""The environment: typed, complete, every mistake told at once, no secret shown."""

from datetime import timedelta
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgqueue.errors import SettingsError
from pgqueue.settings import Settings, settings_from, shown, transport_problems

URL = "postgresql://bob:hunter2@db.internal:5433/app"


def problems(**environment: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        settings_from(environment)
    return refused.value.problems


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = settings_from({})
    assert (settings.host, settings.port, settings.queues, settings.modules) == (
        "127.0.0.1",
        3333,
        {"default": 50},
        ("service.jobs",),
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
    assert (settings.mail_brand, settings.mail_locale, settings.mail_timezone) == ("Yellow Books", "mn", "Asia/Ulaanbaatar")
    assert settings == Settings()


def test_every_mistake_is_told_at_once() -> None:
    told = problems(
        PORT="http", PGQUEUE_LEASE="soon", PGQUEUE_DOORBELL="maybe", PGQUEUE_QUEUES="a:0", PGQUEUE_SIGNIN_LIMIT="ten"
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
        ("PGQUEUE_ADMIN_TOKENS", "a,b", "admin_tokens", ("a", "b")),
        ("PGQUEUE_ADMIN_TOKEN", "a", "admin_tokens", ("a",)),
        ("PORT", " ", "port", 3333),
    ],
)
def test_how_values_are_written(name: str, text: str, field: str, value: object) -> None:
    assert getattr(settings_from({name: text}), field) == value


def test_both_names_of_the_admin_tokens_count() -> None:
    assert settings_from({"PGQUEUE_ADMIN_TOKENS": "new", "PGQUEUE_ADMIN_TOKEN": "old"}).admin_tokens == ("new", "old")


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    assert settings_from({"PGQUEUE_API_TOKENS_FILE": str(tmp_path / "token")}).api_tokens == ("s3cret",)
    (said,) = problems(SMTP_PASSWORD_FILE=str(tmp_path / "none"))
    assert said == "SMTP_PASSWORD_FILE: cannot be read: FileNotFoundError"


def test_no_secret_is_ever_shown() -> None:
    settings = settings_from(
        {"DATABASE_URL": URL, "PGQUEUE_DIRECT_URL": URL, "SMTP_PASSWORD": "hunter2", "SENDGRID_API_KEY": "SG.hunter2",
         "PGQUEUE_ADMIN_TOKENS": "hunter2,hunter2"}
    )  # fmt: skip
    rows = {name: value for name, value, _ in shown(settings)}
    assert "hunter2" not in str(rows)
    assert rows["DATABASE_URL"] == rows["SMTP_PASSWORD"] == "(set)"
    assert rows["PGQUEUE_ADMIN_TOKENS"] == "(2 set)"
    (said,) = problems(DATABASE_URL="mysql://bob:hunter2@db/x")
    assert "hunter2" not in said


def test_prisma_s_parameters_are_ignored_with_a_warning_and_its_schema_is_the_search_path() -> None:
    settings = settings_from({"DATABASE_URL": f"{URL}?schema=old+app&connection_limit=5&pgbouncer=true&sslmode=prefer"})
    given = conninfo_to_dict(settings.conninfo)
    assert given["options"] == '-c search_path="old\\ app"'
    assert (given["host"], given["port"], given["sslmode"]) == ("db.internal", "5433", "prefer")
    assert settings.warnings == ("ignored in the database URL: connection_limit, pgbouncer",)


def test_dead_peers_are_noticed() -> None:
    given = conninfo_to_dict(settings_from({"DATABASE_URL": URL}).conninfo)
    assert given["tcp_user_timeout"] == "20000"
    assert given["keepalives_idle"] == "10"
    assert conninfo_to_dict(settings_from({"DATABASE_URL": f"{URL}?connect_timeout=2"}).conninfo)["connect_timeout"] == "2"


def test_without_a_database_the_error_says_what_to_set() -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL is not set: say where Postgres is"):
        _ = settings_from({}).conninfo


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PGQUEUE_KEEP_COMPLETED": "30m"}, "not shorter than PGQUEUE_SIGNIN_LIMIT's window (1h)"),
        ({"PGQUEUE_KEEP_IDS": "1d"}, "PGQUEUE_KEEP_IDS may not be shorter"),
        ({"PGQUEUE_PGBOUNCER": "on", "DATABASE_URL": f"{URL}?schema=x"}, "?schema= cannot pass a pooler"),
    ],
)
def test_settings_that_contradict_each_other(environment: dict[str, str], sentence: str) -> None:
    assert any(sentence in said for said in problems(**environment))


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, None),
        ({"SMTP_HOST": "mail"}, "SMTP_HOST is set but MAIL_TRANSPORT is not"),
        ({"SENDGRID_API_KEY": "k"}, "SENDGRID_API_KEY is set but MAIL_TRANSPORT is not"),
        ({"SMTP_HOST": "mail", "MAIL_TRANSPORT": "log"}, None),
        ({"MAIL_TRANSPORT": "smtp", "MAIL_FROM": "a@b.mn"}, "SMTP_HOST is not set"),
        ({"MAIL_TRANSPORT": "smtp", "SMTP_HOST": "mail"}, "MAIL_FROM (or SMTP_FROM) is not set"),
        ({"MAIL_TRANSPORT": "smtp", "SMTP_HOST": "mail", "MAIL_FROM": "a@b.mn", "SMTP_USER": "u"}, "go together"),
        ({"MAIL_TRANSPORT": "sendgrid", "MAIL_FROM": "a@b.mn"}, "SENDGRID_API_KEY is not set"),
        ({"MAIL_TRANSPORT": "sendgrid", "SENDGRID_API_KEY": "k", "SENDGRID_FROM_EMAIL": "a@b.mn"}, None),
    ],
)
def test_what_a_worker_that_sends_mail_lacks(environment: dict[str, str], sentence: str | None) -> None:
    told = transport_problems(settings_from(environment))
    assert (told == []) if sentence is None else any(sentence in said for said in told)


def test_readme_and_settings_agree() -> None:
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    missing = [name for name, _, _ in shown(Settings()) if f"`{name}`" not in readme]
    assert missing == []
