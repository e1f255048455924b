"""Every command of ddoq in a page is one that there is, with its options and settings, whether or not it is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from flows.catalogue import load_recipe
from flows.cli import app
from tests.docs.pages import PAGES, blocks, commands
from tests.places import REPOSITORY

SHOWN = [
    (page, words)
    for page in PAGES
    for block in blocks(page)
    if block.language == "sh"
    for words in commands(block.text)
]


@pytest.mark.parametrize(
    ("page", "words"), SHOWN, ids=[f"{p.relative_to(REPOSITORY)}: {' '.join(w)[:60]}" for p, w in SHOWN]
)
def test_command_is_there(page: Path, words: list[str]) -> None:
    group = typer.main.get_command(app)
    name, *given = words
    if name.startswith("-"):
        group.make_parser(typer.Context(group)).parse_args(list(words))
        return
    assert name in group.commands, name  # type: ignore[attr-defined]
    context = group.commands[name].make_context(name, given)  # type: ignore[attr-defined]  # refuses unknown options
    if recipe := context.params.get("recipe"):
        load_recipe(recipe, None, context.params["settings"])


def test_blocks_are_of_kinds_that_are_checked() -> None:
    known = {"sh", "python", "diff", "json", "yaml", "mermaid"}
    for page in PAGES:
        for block in blocks(page):
            assert block.language in known, f"{page}: {block.language}"
            assert block.marker is None or block.told
