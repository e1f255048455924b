"""What a run says at its end: the table of stages and the accuracies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.run import Run
from storage.artifact import Artifact
from tasks.config import Recipe


def stage_rows(run: Run) -> list[dict[str, Any]]:
    """One row per stage: cached or ran, units, and the seconds its tasks worked in this run."""
    rows = []
    for stage, jobs in run.by_stage():
        ran = [job for job in jobs if not job.was_done]
        seconds = sum(sum(job.artifact.record().seconds.values()) for job in ran)
        state = (
            "cached"
            if not ran
            else "ran"
            if len(ran) == len(jobs)
            else f"ran {len(ran)}, cached {len(jobs) - len(ran)}"
        )
        units = sum(job.units for job in jobs)
        rows.append(
            {"stage": stage, "state": state, "artifacts": len(jobs), "units": units, "seconds": round(seconds, 1)}
        )
    return rows


def results(report: Artifact) -> list[dict[str, Any]]:
    """The rows of results.json: method, architecture, top-1 mean and standard deviation, W2."""
    return list(json.loads((report.path / "report" / "results.json").read_text()))


def to_markdown(recipe: Recipe, found: list[dict[str, Any]]) -> str:
    """The accuracies as a Markdown table."""
    lines = [
        f"# {recipe.name}, {recipe.ipc} images per class",
        "| method | student | top-1 % | W2 |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {r['method']} | {r['architecture']} | {spread(r)} | {r['w2']:.3f} |" for r in found]
    return "\n".join(lines)


def spread(row: dict[str, Any]) -> str:
    """Mean ± standard deviation of the top-1 accuracy in per cent."""
    return f"{100 * row['top1_mean']:.1f} ± {100 * row['top1_std']:.1f}"


def show(console: Console, recipe: Recipe, found: dict[str, Any], seconds: float) -> None:
    """Print the closing tables and where the report lies."""
    stages = Table("stage", "state", "artifacts", "units", "seconds", title=f"{recipe.name} in {seconds:.0f} s")
    for row in found["stages"]:
        stages.add_row(*(str(row[key]) for key in ("stage", "state", "artifacts", "units", "seconds")))
    console.print(stages if found["stages"] else f"nothing to do: {recipe.name} has no such stage as it is set")
    if "results" not in found:
        return
    accuracies = Table(
        "method",
        "student",
        "top-1 %",
        "W2",
        title=f"{recipe.ipc} images per class, {len(recipe.seeds)} seeds, last epoch",
    )
    for row in found["results"]:
        accuracies.add_row(row["method"], row["architecture"], spread(row), f"{row['w2']:.3f}")
    console.print(accuracies)
    console.print(f"report: {Path(found['report'])}", soft_wrap=True)
