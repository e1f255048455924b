"""The Prefect flows: the whole distillation, and each of its stages alone, all with the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from prefect import Flow, flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.catalogue import changed
from flows.causes import cause_in_state
from flows.dag import distillation
from flows.progress import watching
from flows.run import Run, link_newest
from flows.runners import dask_runner
from flows.summary import stage_rows, to_markdown, unit_rows
from flows.tracking import tracked
from tasks.inputs.cached import show_cached
from tasks.inputs.runs import keep_run
from tasks.inputs.stores import rows_of_report
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import STAGES, Count, Minutes, Seed, Text
from tasks.report import preferred

Found = TypeVar("Found")


def _flow(name: str, description: str, only: str | None = None) -> Flow[..., dict[str, Any]]:
    """A flow over the DAG, or over one stage of it."""

    @flow(name=name, task_runner=dask_runner(), flow_run_name=f"{name}-{{recipe.name}}", description=description)
    @cause_in_state
    def run(
        recipe: Recipe,
        ipc: Count | None = None,
        data: Text | None = None,
        minutes: Minutes | None = None,
        seeds: tuple[Seed, ...] | None = None,
        changes: dict[str, Any] | None = None,
        root: str = "runs",
    ) -> dict[str, Any]:
        """Prefect shows what is said here of the parameters.

        Args:
            recipe: all settings; a deployment has its own
            ipc: images per class, instead of the recipe's
            data: where the images are, instead of the recipe's data.path
            minutes: about how long; the models that are trained get as many steps as fit
            seeds: of the students, instead of the recipe's, e.g. [0, 1, 2]
            changes: other settings, dotted: {"decode.strength": 0.4}
            root: the folder of all artifacts
        """
        recipe = changed(recipe, changes, ipc=ipc, data=data, minutes=minutes, seeds=seeds)
        return execute(recipe, root, only=only)

    return run


distill = _flow("distill", "Distil a data set: shard → encode → cluster → decode → train → evaluate → report.")


def execute(recipe: Recipe, root: str, *, only: str | None) -> dict[str, Any]:
    """Run the DAG, or one stage of it, inside a flow. Returns what the closing table shows."""
    run = Run(Path(root), recipe, only=only)
    (recipe, artifacts), rows = carry_out(run, lambda: distillation(run, recipe))
    if only is not None:
        publish_stages(run, rows)
        return {"stages": rows}
    link_newest(run.root, recipe.name, artifacts)
    found = rows_of_report(artifacts["report"])
    keep_run(run.root / recipe.name, recipe, artifacts, preferred=preferred(found))
    publish_stages(run, rows)
    run.publish(create_markdown_artifact, to_markdown(recipe, found), key=run.key("report"), description=recipe.name)
    return {
        "stages": rows,
        "results": found,
        "differences": rows_of_report(artifacts["report"], "differences"),
        "report": str(run.root / recipe.name / "report" / "report" / "report.html"),
    }


def carry_out(run: Run, submit: Callable[[], Found]) -> tuple[Found, list[dict[str, Any]]]:
    """Submit a run's jobs and wait for all of them, showing how far they are. Returns what `submit` does, and a row
    per stage."""
    run.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with watching(run), tracked(run):
        found = submit()
        run.wait()
    for stage, jobs in run.by_stage():
        if all(job.was_done for job in jobs):
            show_cached(stage, [str(job.artifact) for job in jobs])
    return found, stage_rows(run)


def publish_stages(run: Run, rows: list[dict[str, Any]]) -> None:
    """Show the stages, and the units of each, as tables in Prefect, once all that a run leaves on disk is there."""
    run.publish(create_table_artifact, rows, key=run.key("stages"), description=f"Stages of {run.recipe.name}")
    for stage, units in unit_rows(run).items():
        run.publish(create_table_artifact, units, key=run.key(f"units-{stage}"), description=f"Units of {stage}")


@cache
def _stage_flow(stage: str) -> Flow[..., dict[str, Any]]:
    return _flow(stage, f"The stage {stage} alone; what it reads must be complete. Parameters as for distill.", stage)


def __getattr__(name: str) -> Flow[..., dict[str, Any]]:
    """The flow of a stage, made when it is asked for: `flows/distill.py:cluster`."""
    if name in STAGES:
        return _stage_flow(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
