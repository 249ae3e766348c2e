"""What is not code but has to agree with it: the example environment, the manifests, the list of
packages."""

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pgqueue_service.settings import ServiceSettings

from pgqueue.durations import duration
from pgqueue.errors import SettingsError
from pgqueue.settings import settings_from
from tests.support.places import ROOT

FIELDS = {
    field.metadata["name"]: field.metadata
    for field in dataclasses.fields(ServiceSettings)
    if "name" in field.metadata
}
NAMES = {name for field in FIELDS.values() for name in (field["name"], *field["also"])}
ELSEWHERE = {"SMTP_ENABLED", "PGQUEUE_PG_BINDIR"}
"""Read, but no setting of the service: the old switch, and the server that dev and tests start."""


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line))


def test_the_example_environment_names_every_setting_and_no_other() -> None:
    assert set(example()) == NAMES | ELSEWHERE


def test_the_example_environment_shows_the_defaults() -> None:
    shown = {
        name: text.strip('"')
        for name, text in example().items()
        if name in FIELDS and name != "DATABASE_URL"
    }
    defaults = {name: FIELDS[name]["default"] or "" for name in shown}
    assert shown == defaults | {"MAIL_TRANSPORT": "log"}


def test_the_example_environment_is_valid() -> None:
    # A secret without a value is refused: these lines are there to be filled in.
    settings_from(
        {name: text.strip('"') for name, text in example().items() if text.strip('"')},
        ServiceSettings,
    )


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))


def pods() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each pod's spec with its one container."""
    for manifest in manifests():
        if template := manifest["spec"].get("template") if "spec" in manifest else None:
            (container,) = template["spec"]["containers"]
            yield template["spec"], container


def environment() -> dict[str, str]:
    given: dict[str, str] = {}
    for manifest in manifests():
        given |= manifest.get("data", {}) | manifest.get("stringData", {})
    return {
        name: text.replace("REPLACE-ME", f"3f9c{name.lower()}7d21") for name, text in given.items()
    }


def test_a_manifest_whose_secrets_were_not_filled_in_starts_nothing() -> None:
    secrets = next(one["stringData"] for one in manifests() if one["kind"] == "Secret")
    with pytest.raises(SettingsError, match="PGQUEUE_ADMIN_TOKENS: its token is a placeholder"):
        settings_from(secrets, ServiceSettings)


def test_the_manifests_set_what_is_a_setting_and_together_are_valid() -> None:
    set_for_one = {one["name"] for _, container in pods() for one in container.get("env", [])}
    assert set(environment()) | set_for_one <= NAMES
    settings_from(environment(), ServiceSettings)


def test_a_pod_gets_longer_to_stop_than_its_process_takes() -> None:
    settings = settings_from(environment(), ServiceSettings)
    for pod, container in pods():
        if container["name"] == "worker":
            assert timedelta(
                seconds=pod["terminationGracePeriodSeconds"]
            ) > settings.shutdown_timeout + timedelta(seconds=10)
        if container["name"] == "api":
            assert (
                duration(pod["terminationGracePeriodSeconds"])
                > settings.drain + settings.request_timeout
            )


def test_a_pod_may_do_nothing_that_it_need_not() -> None:
    for pod, container in pods():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_what_selects_pods_selects_some() -> None:
    labels = [
        manifest["spec"]["template"]["metadata"]["labels"]
        for manifest in manifests()
        if manifest["kind"] == "Deployment"
    ]
    for manifest in manifests():
        if selector := manifest.get("spec", {}).get("selector"):
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= label.items() for label in labels), manifest["metadata"][
                "name"
            ]


def test_the_image_runs_as_a_number_that_the_manifests_know() -> None:
    containerfile = (ROOT / "Containerfile").read_text()
    assert re.findall(r"^USER (\d+):(\d+)$", containerfile, re.MULTILINE) == [("10001", "10001")]
    assert {pod["securityContext"]["runAsUser"] for pod, _ in pods()} == {10001}


def test_every_package_and_every_kind_of_file_is_in_the_wheel() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tops = {"pgqueue": "pgqueue", "pgqueue/sql": "sql", "pytest_pgqueue": "pgqueue/pytest_plugin"}
    assert setuptools["package-dir"] == {
        package.replace("/", "."): folder for package, folder in tops.items() if package != folder
    }
    plugin = ROOT / "pgqueue" / "pytest_plugin"
    found, suffixes = set(), set()
    for package, folder in tops.items():
        for file in (ROOT / folder).rglob("*"):
            if package == "pgqueue" and plugin in file.parents:
                continue  # installed under a name of its own
            inside = Path(package) / file.relative_to(ROOT / folder)
            if "__pycache__" in file.parts or not file.is_file() or file.name == ".gitignore":
                continue
            suffixes.add(file.suffix)
            if file.name == "__init__.py":
                found.add(".".join(inside.parent.parts))
            else:
                assert (file.parent / "__init__.py").exists() or file.name == "roles.sql", (
                    f"{file}: no package"
                )
    assert found == set(setuptools["packages"])
    given = {Path(pattern).suffix for pattern in setuptools["package-data"]["*"]} | {".py"}
    assert {suffix for suffix in suffixes if suffix} <= given


def test_every_folder_and_every_kind_of_file_of_the_service_is_in_its_wheel() -> None:
    setuptools = tomllib.loads((ROOT / "service/pyproject.toml").read_text())["tool"]["setuptools"]
    given = {Path(pattern).suffix for pattern in setuptools["package-data"]["*"]} | {".py", ""}
    for file in (ROOT / "service" / "pgqueue_service").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert (file.parent / "__init__.py").exists(), f"{file}: no package"
            assert file.suffix in given, f"{file}: of a kind that the wheel leaves out"
