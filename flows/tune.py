"""The Prefect flow that finds settings of decoding on training images that were kept for it."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from prefect import flow

from flows.catalogue import changed, grid_of
from flows.causes import cause_in_state
from flows.dag import Outcome, tuning
from flows.distill import carry_out, publish_stages
from flows.run import Run
from flows.runners import dask_runner
from storage.files import write_json
from tasks.pages.costs import seconds
from tasks.recipe.cells import RANDOM
from tasks.recipe.grid import Grid
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import Count, Minutes, Seed, Text

TUNE = "tune"


@flow(name=TUNE, task_runner=dask_runner(), flow_run_name="tune-{recipe.name}")
@cause_in_state
def tune(
    recipe: Recipe,
    grid: Grid | None = None,
    method: str | None = None,
    ipc: Count | None = None,
    data: Text | None = None,
    minutes: Minutes | None = None,
    seeds: tuple[Seed, ...] | None = None,
    changes: dict[str, Any] | None = None,
    root: str = "runs",
) -> dict[str, Any]:
    """Try settings of decoding on training images that no stage trains on or distils; validation is not looked at.

    Args:
        recipe: all settings; a deployment has its own
        grid: what is tried; the usual one if not given
        method: of the recipe, whose settings are changed; its first that decodes through the prior
        ipc: images per class, instead of the recipe's
        data: where the images are, instead of the recipe's data.path
        minutes: about how long one of its runs would take; the models that are trained get as many steps as fit
        seeds: instead of the grid's, e.g. [0, 1, 2]
        changes: other settings of the recipe, dotted
        root: the folder of all artifacts, shared with `distill`
    """
    grid = grid_of({**(grid or Grid()).model_dump(), **({"seeds": seeds} if seeds else {})})
    recipe = changed(recipe, changes, ipc=ipc, data=data, minutes=minutes)
    tried = grid.recipe(recipe, method)
    run = Run(Path(root), recipe)
    outcome, rows = carry_out(run, lambda: tuning(run, tried))
    publish_stages(run, rows)
    found = {"ipc": recipe.ipc, "seeds": grid.seeds, "results": _results(grid, tried, outcome)}
    path = run.root / recipe.name / f"{TUNE}.json"
    write_json(path, {"recipe": tried.model_dump(mode="json"), **found})
    return {"stages": rows, **found, "report": str(path)}


def _results(grid: Grid, recipe: Recipe, outcome: Outcome) -> list[dict[str, Any]]:
    """A row per settings, the best first: top-1 of each seed on the kept images, its interval, its difference to real
    images at random of the same seeds, and the seconds of decoding and training."""
    from ddoq_core.measure.statistics import interval_of, paired_difference

    architecture = recipe.train.architectures[0]

    tried = {**grid.tried(), RANDOM: {}}
    scores = {name: [outcome.choices[f"{name}/{architecture}/{seed}"] for seed in grid.seeds] for name in tried}
    top1 = {name: [float(score.record().facts["top1"]) for score in own] for name, own in scores.items()}
    rows = []
    for name, settings in tried.items():
        students = [score.parents["train"] for score in scores[name]]
        interval, difference = interval_of(top1[name]), paired_difference(top1[name], top1[RANDOM]).interval
        rows.append(
            {
                "name": name,
                "settings": settings,
                "top1": top1[name],
                **{f"top1_{key}": value for key, value in interval._asdict().items()},
                "top1_half": interval.half,
                **{f"minus_random_{key}": value for key, value in difference._asdict().items()},
                "decode_seconds": fmean(seconds(student.parents["decode"]) for student in students),
                "train_seconds": fmean(seconds(student) for student in students),
            }
        )
    return sorted(rows, key=lambda row: -row["top1_mean"])
