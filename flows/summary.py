"""What a run says at its end: the table of stages and the accuracies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.run import Run
from storage.record import Mark
from tasks.recipe.recipe import Recipe
from tasks.report import preferred

PARTS = ("read", "compute", "write")
MOST_UNITS = 200


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


def unit_rows(run: Run) -> dict[str, list[dict[str, Any]]]:
    """By stage a row for each unit of what this run has completed, the slowest first, at most MOST_UNITS.

    Seconds of reading, computing and writing, images per second of them, and the peak memory of the unit's process.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for stage, jobs in run.by_stage():
        marks = [(job.artifact, mark) for job in jobs if not job.was_done for mark in job.artifact.marks().values()]
        rows = [_unit_row(str(artifact), mark) for artifact, mark in marks]
        found[stage] = sorted(rows, key=lambda row: -sum(row[part] or 0 for part in PARTS))[:MOST_UNITS]
    return {stage: rows for stage, rows in found.items() if rows}


def _unit_row(artifact: str, mark: Mark) -> dict[str, Any]:
    seconds, images = {part: mark.seconds.get(part) for part in PARTS}, mark.facts.get("images")
    speed = {"images/s": round(images / sum(mark.seconds.values()), 1)} if images and mark.seconds else {}
    return {"unit": f"{artifact}/{mark.unit}", **seconds, **speed, "peak MiB": mark.peak_bytes // 2**20}


def to_markdown(recipe: Recipe, found: list[dict[str, Any]]) -> str:
    """The accuracies as a Markdown table."""
    lines = [
        f"# {recipe.name}, {recipe.ipc} images per class",
        "| method | student | top-1 % | W2 |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {r['method']} | {r['architecture']} | {spread(r)} | {_w2(r)} |" for r in found]
    return "\n".join(lines)


def spread(row: dict[str, Any]) -> str:
    """Mean ± standard deviation of the top-1 accuracy in per cent; of one seed there is no deviation."""
    return f"{100 * row['top1_mean']:.1f}" + (f" ± {100 * row['top1_std']:.1f}" if row["num_seeds"] > 1 else "")


def _w2(row: dict[str, Any]) -> str:
    """W2, which pictures without prototypes do not have."""
    return "–" if row["w2"] is None else f"{row['w2']:.3f}"


def show(console: Console, recipe: Recipe, found: dict[str, Any], seconds: float) -> None:
    """Print the closing tables and where the report lies."""
    _show_stages(console, recipe.name, found, seconds)
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
        accuracies.add_row(row["method"], row["architecture"], spread(row), _w2(row))
    console.print(accuracies)
    if found["differences"]:
        _show_differences(console, found["differences"])
    if best := preferred(found["results"]):
        means = ", ".join(f"{row['method']} {100 * row['tune_mean']:.1f}" for row in found["results"])
        console.print(f"training images kept for choosing prefer {best}, which ddoq export hands out ({means} %)")
    console.print(f"report: {Path(found['report'])}", soft_wrap=True)


def show_tuning(console: Console, recipe: Recipe, found: dict[str, Any], seconds: float) -> None:
    """Print what was tried, the best first, and how to take it."""
    _show_stages(console, recipe.name, found, seconds)
    title = f"{found['ipc']} images per class, {len(found['seeds'])} seeds: top-1 % on kept training images"
    table = Table("settings", "top-1 %, 95 % interval", "minus random images", "decode + train s", title=title)
    for row in found["results"]:
        sides = f"{100 * row['minus_random_low']:+.1f} to {100 * row['minus_random_high']:+.1f}"
        cost = f"{row['decode_seconds']:.0f} + {row['train_seconds']:.0f}"
        table.add_row(row["name"], _with_interval(row), sides, cost)
    console.print(table)
    best = next(row for row in found["results"] if row["settings"])
    console.print("best: " + " ".join(f"--set decode.{name}={value}" for name, value in best["settings"].items()))
    console.print(f"report: {Path(found['report'])}", soft_wrap=True)


def show_comparison(console: Console, recipe: Recipe, found: dict[str, Any], seconds: float) -> None:
    """Print a table of accuracies for each number of images per class and student, and what is sure."""
    _show_stages(console, recipe.name, found, seconds)
    panels = dict.fromkeys((row["ipc"], row["architecture"]) for row in found["results"])
    for ipc, architecture in panels:
        rows = [row for row in found["results"] if (row["ipc"], row["architecture"]) == (ipc, architecture)]
        columns, lines = grid(rows)
        num_seeds = rows[0]["num_seeds"]
        title = f"{ipc} images per class, {architecture}: top-1 %, 95 % interval over {num_seeds} seeds, last epoch"
        table = Table("quantiser", "weights", *columns, title=title)
        for line in lines:
            table.add_row(*line)
        console.print(table)
        own = [row for row in found["differences"] if (row["ipc"], row["architecture"]) == (ipc, architecture)]
        _show_differences(console, own)
    console.print(f"report: {Path(found['report'])}", soft_wrap=True)


def _show_differences(console: Console, rows: list[dict[str, Any]]) -> None:
    sure = Table("question", "difference in points", "95 % interval", "p, corrected", title="* = sure")
    for row in rows:
        interval = f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}"
        mark = " *" if row["significant"] else ""
        sure.add_row(row["question"], f"{100 * row['mean']:+.2f}{mark}", interval, f"{row['p_holm']:.3f}")
    console.print(sure)


def grid(results: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Results at one number of images per class and one student as a table: kinds of pictures, and lines of quantiser,
    weights and the accuracies."""
    kinds = list(dict.fromkeys(row["pictures"] for row in results))
    at = {(row["quantizer"], _weights(row), row["pictures"]): row for row in results}
    lines = []
    for quantizer, weights in dict.fromkeys(key[:2] for key in at):
        cells = [at.get((quantizer, weights, kind)) for kind in kinds]
        lines.append([quantizer, weights, *("" if cell is None else _with_interval(cell) for cell in cells)])
    return kinds, lines


def _weights(row: dict[str, Any]) -> str:
    return row["weights"] if row["weights_in"] == "loss" else f"{row['weights']} by {row['weights_in']}"


def _with_interval(row: dict[str, Any]) -> str:
    return f"{100 * row['top1_mean']:.1f} ± {100 * row['top1_half']:.1f}"


def _show_stages(console: Console, name: str, found: dict[str, Any], seconds: float) -> None:
    stages = Table("stage", "state", "artifacts", "units", "seconds", title=f"{name} in {seconds:.0f} s")
    for row in found["stages"]:
        stages.add_row(*(str(row[key]) for key in ("stage", "state", "artifacts", "units", "seconds")))
    console.print(stages if found["stages"] else f"nothing to do: {name} has no such stage as it is set")
