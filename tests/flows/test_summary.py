"""What is printed is printed as it is: brackets are no markup, colons no pictures."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.catalogue import load_recipe
from flows.cli import console
from flows.progress import watching
from flows.run import Job, Run
from flows.summary import show, show_comparison
from storage.artifact import Artifact
from tests.flows.conftest import Result, Services, run_tiny

pytestmark = pytest.mark.slow

ODD = "[red]a[/] :car:"
STAGE = {"stage": "shard", "state": "ran", "artifacts": 1, "units": 1, "seconds": 0.1}
SCORE = {
    "method": ODD, "architecture": ODD, "w2": 1.0, "num_seeds": 2, "ipc": 1, "quantizer": ODD, "weights": "mass",
    "weights_in": "loss", "pictures": ODD, "top1_mean": 0.5, "top1_half": 0.1, "top1_std": 0.1,
}  # fmt: skip
DIFFERENCE = {
    "ipc": 1, "architecture": ODD, "question": ODD, "mean": 0.1, "low": 0.0, "high": 0.2, "p_holm": 0.5,
    "significant": False,
}  # fmt: skip
FOUND: dict[str, Any] = {"stages": [STAGE], "results": [SCORE], "differences": [DIFFERENCE], "report": f"/{ODD}/r"}


def test_tables_show_names_verbatim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 200)
    recipe = load_recipe("digits").model_copy(update={"name": ODD})
    with console.capture() as shown:
        show(console, recipe, FOUND, 1.0)
        show_comparison(console, recipe, FOUND, 1.0)
    text = shown.get()
    assert f"report: /{ODD}/r\n" in text
    assert text.count(ODD) >= 9 and text.count("[red]") == text.count(ODD)


def test_progress_shows_names_and_notes_verbatim(tmp_path: Path) -> None:
    run = Run(tmp_path, load_recipe("digits"))
    done = Artifact(tmp_path, "shard", 1, {})
    run.jobs[ODD] = Job(done)
    for terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, markup=False, emoji=False, width=200, color_system=None)
        done.report_progress(1, 2, note=ODD)
        with watching(run, console):
            pass
        assert not terminal or ODD in out.getvalue()


def test_a_root_with_brackets_is_told_verbatim(
    finished: tuple[Path, Result], services: Services, tmp_path: Path
) -> None:
    root = tmp_path / "[old] :car:"
    shutil.copytree(finished[0], root, symlinks=True)
    result = run_tiny(root, **services.both)
    assert result.code == 0, result.errors
    assert f"report: {root}/digits/report/report/report.html\n" in result.output
