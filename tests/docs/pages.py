"""The pages as tests read them: fenced blocks with what a comment before them says, commands, links, anchors.

A block of a page is run as it stands (tests/flows/test_howtos.py), after a comment of these on the line before it not,
or otherwise; readers of the built page do not see them:

    <!-- not run: needs a cluster -->     its commands and settings are checked alone
    <!-- in the background: TEXT -->      it is ended with the page; what follows waits until it has printed the text
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.places import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- (?P<marker>not run|in the background): (?P<told>[^\n]+) -->\n)?"
    r"```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
CODE = re.compile(r"^```.*?^```$|^(?: {4}|\t).*$|`[^`\n]+`|<!--.*?-->", re.MULTILINE | re.DOTALL)
LINK = re.compile(
    r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)(?: \"[^\"]*\")?\)|<(https?:[^>]+)>|(?:href|src)=\"([^\"]+)\""
)
HEADING = re.compile(r"^#{1,6} +(.+?)#*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that its title names, the marker before it and what that tells."""

    language: str
    text: str
    title: str | None
    marker: str | None
    told: str | None


def blocks(page: Path) -> list[Block]:
    """In their order."""
    found = FENCE.finditer(page.read_text())
    return [Block(m["language"], m["text"], m["title"], m["marker"], m["told"]) for m in found]


def commands(script: str) -> Iterator[list[str]]:
    """The words of each `ddoq …` or `uv run ddoq …` of a shell script, behind `ddoq`."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "ddoq" in words and words[: words.index("ddoq")] in ([], ["uv", "run"]):
            yield words[words.index("ddoq") + 1 :]


def links(page: Path) -> list[str]:
    """The targets of links and pictures, not of what stands in code."""
    return [target for found in LINK.findall(CODE.sub("", page.read_text())) for target in found if target]


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and Python-Markdown name them where both agree: letters, digits, single hyphens."""
    headings = HEADING.findall(re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL))
    return {re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}
