"""Builds the pages of the repository into build/docs: `python3 dev.py docs`.

The generator (zensical, the extra `docs`) wants all pages below one folder, and the pages link to
files next to that: so the pages and the files that they link to are copied into one tree first. A
link to a folder, which is no page, becomes text. A warning of the generator ends the build.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "build" / "docs-source"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]

LINK = re.compile(
    r"(?<!\!)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s#:]+)(#[^()\s]*)?\)"
)


def main() -> int:
    shutil.rmtree(TREE, ignore_errors=True)
    for page in PAGES:
        text = page.read_text()
        put(page, LINK.sub(lambda link, page=page: resolved(page, link), text))
    for picture in (ROOT / "docs").rglob("*.png"):
        put(picture)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def put(file: Path, text: str | None = None) -> None:
    """Copies a file to its place in the tree, with another text if there is one."""
    copy = TREE / file.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        shutil.copyfile(file, copy)
    else:
        copy.write_text(text)


def resolved(page: Path, link: re.Match[str]) -> str:
    """The link as it is in the tree. What it leads to is copied, if that is a file."""
    target = Path(os.path.normpath(page.parent / link["target"]))
    if target.is_dir():
        return link["text"]
    if target.is_file() and target not in PAGES:
        put(target)
    return link[0]


if __name__ == "__main__":
    sys.exit(main())
