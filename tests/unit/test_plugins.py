"""Entry points of other distributions: which settings are read, which commands there are."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pgqueue_service.settings import ServiceSettings

from pgqueue import plugins
from pgqueue.cli import main
from pgqueue.errors import SettingsError
from pgqueue.settings import Settings, settings_from
from pgqueue.settings.environment import setting, text

HERE = __name__


@dataclass(frozen=True, kw_only=True)
class ShopSettings(ServiceSettings):
    shop: str = setting("SHOP_NAME", text, "Corner shop", "the name of the shop")


@dataclass(frozen=True, kw_only=True)
class OtherSettings(Settings):
    pass


@click.command()
def greet() -> None:
    """Greet the operator."""
    click.echo("hello")


def installed(monkeypatch: pytest.MonkeyPatch, group: str, **values: str) -> None:
    """These entry points, and no others."""
    points = [EntryPoint(name, value, group) for name, value in values.items()]

    def entry_points(**wanted: Any) -> EntryPoints:
        return EntryPoints(points).select(**wanted)

    monkeypatch.setattr(plugins, "entry_points", entry_points)


def test_with_the_service_installed_every_command_reads_its_settings() -> None:
    assert plugins.settings_class() is ServiceSettings


def test_without_other_distributions_the_library_s_own_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, "pgqueue.settings")
    assert plugins.settings_class() is Settings
    assert plugins.old_tables() == []


def test_of_classes_that_inherit_from_each_other_the_last_one_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = "pgqueue_service.settings:ServiceSettings"
    installed(monkeypatch, "pgqueue.settings", shop=f"{HERE}:ShopSettings", service=service)
    found = settings_from({"SHOP_NAME": "Bakery", "PORT": "80"}, plugins.settings_class())
    assert isinstance(found, ShopSettings)
    assert (found.shop, found.port, found.warnings) == ("Bakery", 80, ())


def test_two_classes_that_do_not_know_each_other_stop_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, "pgqueue.settings", a=f"{HERE}:ShopSettings", b=f"{HERE}:OtherSettings")
    with pytest.raises(SettingsError, match="write one class that inherits from all of them"):
        plugins.settings_class()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("no.such.module:Settings", "cannot be loaded: No module named 'no'"),
        (f"{HERE}:Nothing", "cannot be loaded"),
        (f"{HERE}:greet", "is not a class that inherits from Settings"),
    ],
)
def test_an_entry_point_that_is_wrong_is_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, value: str, sentence: str
) -> None:
    installed(monkeypatch, "pgqueue.settings", broken=value)
    result = CliRunner().invoke(main, ["status"])
    assert result.exit_code == 2
    assert f"pgqueue.settings broken = {value} of an installed distribution" in result.stderr
    assert sentence in result.stderr


def test_another_distribution_adds_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "pgqueue.commands", greet=f"{HERE}:greet")
    assert "Greet the operator." in CliRunner().invoke(main, ["--help"]).stdout
    assert CliRunner().invoke(main, ["greet"]).stdout == "hello\n"
    missing = CliRunner().invoke(main, ["api"])
    assert (missing.exit_code, "pip install pgqueue-service" in missing.stderr) == (2, True)


def test_a_command_that_cannot_be_loaded_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, "pgqueue.commands", greet="no.such:greet")
    listed = CliRunner().invoke(main, ["--help"])
    assert listed.exit_code == 0
    assert "cannot be loaded" in listed.stdout
    assert CliRunner().invoke(main, ["greet"]).exit_code == 2
