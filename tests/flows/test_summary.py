"""What is printed is printed as it is: brackets are no markup, colons no pictures."""

from __future__ import annotations

import io
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows import progress
from flows.catalogue import load_recipe
from flows.cli import console
from flows.progress import watching
from flows.run import Job, Run
from flows.summary import show, show_comparison, unit_rows
from storage.artifact import Artifact
from storage.clock import Clock
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


def test_a_log_tells_now_and_then_how_far_a_stage_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.2)
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.1)
    run, out = Run(tmp_path, load_recipe("digits")), io.StringIO()
    artifact = Artifact(tmp_path, "prior", 1, {})
    run.jobs["prior"] = Job(artifact)
    with watching(run, Console(file=out, width=200)):
        for k in range(1, 7):
            artifact.report_progress(k, 60, note=f"loss {k}")
            time.sleep(0.2)
    assert re.search(r"^prior: 0/1, \d+%, loss \d, 0:00:\d\d left$", out.getvalue(), re.MULTILINE), out.getvalue()


def test_units_are_told_with_their_seconds_the_slowest_first(tmp_path: Path) -> None:
    run, artifact = Run(tmp_path, load_recipe("digits")), Artifact(tmp_path, "encode", 1, {})
    artifact.path.mkdir(parents=True)
    for name, seconds in (("a/0", 0.5), ("b/0", 2.0)):
        (artifact.path / name[0]).write_text(name)
        clock = Clock()
        clock._seconds = {"read": seconds / 2, "compute": seconds / 2}
        artifact.commit(name, [artifact.path / name[0]], inputs="", clock=clock, facts={"images": 8})
    run.jobs["encode"] = Job(artifact, units=2)
    rows = unit_rows(run)["encode"]
    assert [row["unit"] for row in rows] == [f"{artifact}/b/0", f"{artifact}/a/0"]
    assert (rows[0]["read"], rows[0]["compute"], rows[0]["write"], rows[0]["images/s"]) == (1.0, 1.0, None, 4.0)
    assert rows[0]["peak MiB"] > 10
    run.jobs["encode"].was_done = True
    assert unit_rows(run) == {}


def test_a_root_with_brackets_is_told_verbatim(
    finished: tuple[Path, Result], services: Services, tmp_path: Path
) -> None:
    root = tmp_path / "[old] :car:"
    shutil.copytree(finished[0], root, symlinks=True)
    result = run_tiny(root, **services.both)
    assert result.code == 0, result.errors
    assert f"report: {root}/digits/report/report/report.html\n" in result.output
