"""How root runs Postgres, which refuses root: as the user nobody, in a folder and with programs
that this user reaches."""

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pgqueue.embedded.binaries import ServerUnavailable


@dataclass(frozen=True)
class Identity:
    """The user as whom the server runs, where that is not ourselves."""

    uid: int
    gid: int


def server_identity() -> Identity | None:
    """The identity of the server: None for this process's own; for root the user `nobody`."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        problem = (
            "Postgres does not run as root, and there is no user nobody: start this as another user"
        )
        raise ServerUnavailable(problem) from None
    return Identity(nobody.pw_uid, nobody.pw_gid)


def temporary_home(identity: Identity | None, within: Path | None) -> Path:
    """A new folder for temporary files; where the one asked for or TMPDIR is closed to that user,
    in the system's."""
    for parent in (within or tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - only parents; the folder itself is mkdtemp's
        if os.path.isdir(parent) and (identity is None or _reaches(identity, Path(parent))):
            return Path(tempfile.mkdtemp(prefix="pgqueue-", dir=os.path.realpath(parent)))
    raise ServerUnavailable(
        "there is no folder for temporary files that the user nobody gets into: set TMPDIR to one"
    )


def claim(home: Path, identity: Identity | None) -> None:
    """Make the folder, writable for this user only: programs in it are run. Raises
    ServerUnavailable."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = home.stat().st_uid == os.geteuid()
    except OSError as error:
        raise ServerUnavailable(f"{home} cannot be used: {error.strerror}") from None
    if not mine:
        raise ServerUnavailable(
            f"{home} belongs to another user: start this as that user, or choose another folder"
        )
    home.chmod(0o711 if identity else 0o700)
    if identity and not _reaches(identity, home):
        raise ServerUnavailable(
            f"for root Postgres runs as the user `nobody`, which cannot read {home}: choose "
            "another folder"
        )


def reachable(folder: Path, identity: Identity | None, home: Path) -> Path:
    """The programs of a folder where that user can run them: there, or copied under `home`, which
    only we can write in.

    A copy is made anew each time, so that no other program can be in its place. Only the packaged
    programs can be copied: they load `.libs`, a folder next to the package that holds `pginstall`.
    """
    if identity is None or _runs(identity, folder):
        return folder
    install = folder.parent
    package = install.parent
    if install.name != "pginstall":
        raise ServerUnavailable(
            f"the user nobody cannot run the Postgres in {folder}: open that folder, or choose "
            "another"
        )
    target = home / "programs"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        install,
        target / package.name / install.name,
        ignore=shutil.ignore_patterns("include", "*.a"),
    )
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)
    copy = target / package.name / install.name / "bin"
    if not _runs(identity, copy):
        raise ServerUnavailable(
            f"the user nobody cannot run programs in {home}: set TMPDIR to a folder without noexec"
        )
    return copy


def _runs(identity: Identity, folder: Path) -> bool:
    try:
        return all(
            _as(identity, str(folder / program), "--version") for program in ("initdb", "postgres")
        )
    except OSError:
        return False


def _reaches(identity: Identity, folder: Path) -> bool:
    return _as(identity, "/bin/sh", "-c", 'cd "$1"', "sh", str(folder))


def _as(identity: Identity, *command: str) -> bool:
    done = subprocess.run(
        command,
        user=identity.uid,
        group=identity.gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
