"""Code and help texts in the pages of this repository, held to what they come from.

A page shows an example, a part of one, or the help of a command below a comment that names it:

    <!-- examples/images.py -->
    <!-- examples/endings.py: snooze -->
    <!-- help: dlq retry -->

A part stands in the file between `# [snooze]` and `# [/snooze]` (`--` for `#` in SQL). After a
change of an example or of a help text, `python -m tests.support.snippets` writes it into every page
that shows it.
"""

import re
import textwrap
from pathlib import Path

from click.testing import CliRunner

from pgqueue.cli import main
from tests.support.places import ROOT

EXAMPLES = ROOT / "examples"

SHOWN = re.compile(
    r"(?m)^<!-- examples/(?P<file>[\w./-]+)(?:: (?P<part>[\w-]+))? -->\n```(?P<language>\w+)\n"
    r"(?P<code>.*?)^```$",
    re.DOTALL,
)
HELP = re.compile(r"(?ms)^<!-- help:(?P<command>[\w -]*) -->\n```text\n(?P<code>.*?)^```$")
FENCE = re.compile(r"(?ms)(?P<before>^[^\n]*\n)^```(?P<language>\w+)\n(?P<code>.*?)^```$")
MARK = re.compile(r"(?m)^[ \t]*(?:#|--) \[/?[\w-]+\]\n")


def pages() -> list[Path]:
    """Every Markdown page that people read: the top folder, docs/ and the README of each room."""
    return sorted(
        path
        for path in [
            *ROOT.glob("*.md"),
            *ROOT.glob("docs/**/*.md"),
            *ROOT.glob("[a-z]*/README.md"),
        ]
        if "node_modules" not in path.parts
    )


def code_of(file: str, part: str | None = None) -> str:
    """The text of an example, or of one marked part of it, without the marks."""
    text = (EXAMPLES / file).read_text()
    if part is not None:
        found = re.search(
            rf"(?ms)^[ \t]*(?:#|--) \[{part}\]\n(?P<code>.*?)^[ \t]*(?:#|--) \[/{part}\]\n", text
        )
        if found is None:
            raise LookupError(f"examples/{file} has no part [{part}]")
        text = textwrap.dedent(found["code"])
    return MARK.sub("", text).strip("\n") + "\n"


def help_of(command: str) -> str:
    """What `pgqueue COMMAND --help` prints."""
    result = CliRunner().invoke(
        main, [*command.split(), "--help"], prog_name="pgqueue", terminal_width=80
    )
    return result.output.strip("\n") + "\n"


def filled(text: str) -> str:
    """The text of a page with the code and the help texts of now."""

    def now(shown: re.Match[str]) -> str:
        start = shown[0][: shown.start("code") - shown.start()]
        return f"{start}{code_of(shown['file'], shown['part'])}```"

    def help_now(shown: re.Match[str]) -> str:
        return f"<!-- help:{shown['command']} -->\n```text\n{help_of(shown['command'])}```"

    return HELP.sub(help_now, SHOWN.sub(now, text))


def write() -> None:
    for page in pages():
        text = page.read_text()
        if (new := filled(text)) != text:
            page.write_text(new)
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    write()
