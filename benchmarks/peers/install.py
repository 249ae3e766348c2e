"""Environments of the peers: a venv or a node_modules for each, under benchmarks/.cache, made
once."""

import asyncio
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.catalog import OURSELVES, Peer

CACHE = Path(__file__).resolve().parent.parent / ".cache"
PROGRAMS = Path(__file__).resolve().parent / "programs"


class NotInstalled(Exception):
    """Why a peer could not be measured, in words for the report."""


def command(peer: Peer) -> list[str]:
    """The program's start of a command line."""
    if peer is OURSELVES:
        return [sys.executable, str(PROGRAMS / peer.program)]
    interpreter = (
        shutil.which("node") or "node"
        if peer.is_node
        else str(CACHE / peer.folder / "bin" / "python")
    )
    return [interpreter, str(PROGRAMS / peer.program)]


def environment(peer: Peer) -> dict[str, str]:
    modules = {"NODE_PATH": str(CACHE / peer.folder / "node_modules")} if peer.is_node else {}
    return {**peer.environment, **modules}


async def installed(peer: Peer) -> str:
    """Its version, having been installed where it was not. Raises NotInstalled."""
    if peer is OURSELVES:
        from pgqueue import __version__

        return __version__
    return await asyncio.to_thread(_install, peer)


def _install(peer: Peer) -> str:
    folder = CACHE / peer.folder
    stamp = folder / "installed"
    wanted = hashlib.sha256(repr((peer.packages, peer.python)).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if peer.is_node:
            _install_in_node(peer, folder)
        else:
            _install_in_python(peer, folder)
        stamp.write_text(wanted)
    return _version(peer, folder)


def _install_in_node(peer: Peer, folder: Path) -> None:
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        raise NotInstalled("there is no node and npm")
    (folder / "package.json").write_text("{}")
    _run([npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *peer.packages], folder)


def _install_in_python(peer: Peer, folder: Path) -> None:
    python = _python(peer)
    _run([python, "-m", "venv", str(folder)], folder)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", *peer.packages], folder)


def _python(peer: Peer) -> str:
    """Ours where it is new enough for the peer, else the newest that can be found."""
    if sys.version_info[:2] >= peer.python:
        return sys.executable
    named = [f"python3.{minor}" for minor in range(19, peer.python[1] - 1, -1)]
    managed = sorted(
        glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python3")), reverse=True
    )
    for candidate in (*named, *managed):
        code = f"import sys; sys.exit(sys.version_info[:2] < {peer.python})"
        if (path := shutil.which(candidate)) and subprocess.run(
            [path, "-c", code], capture_output=True, check=False
        ).returncode == 0:
            return path
    raise NotInstalled(f"it needs Python {'.'.join(map(str, peer.python))}, and there is none here")


def _version(peer: Peer, folder: Path) -> str:
    name = peer.packages[0].partition("[")[0]
    if peer.is_node:
        found: str = json.loads((folder / "node_modules" / name / "package.json").read_text())[
            "version"
        ]
        node = subprocess.run(
            ["node", "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
        return f"{found} (Node {node})"
    code = (
        "import platform, sys; from importlib.metadata import version as of; "
        "print(of(sys.argv[1]), platform.python_version())"
    )
    python = str(folder / "bin" / "python")
    done = subprocess.run([python, "-c", code, name], capture_output=True, text=True, check=True)
    number, runs_on = done.stdout.split()
    return f"{number} (Python {runs_on})"


def _run(words: list[str], folder: Path) -> None:
    done = subprocess.run(
        words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
        raise NotInstalled(f"could not be installed: {''.join(last)[:200]}")
