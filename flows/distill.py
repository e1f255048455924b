"""The Prefect flows: the whole distillation, and each of its stages alone, all with the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from prefect import Flow, flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import PositiveInt

from flows.causes import cause_in_state
from flows.dag import distillation
from flows.progress import watching
from flows.run import Run, link_newest
from flows.runners import dask_runner
from flows.summary import stage_rows, to_markdown, unit_rows
from tasks.inputs.cached import show_cached
from tasks.inputs.runs import keep_run
from tasks.inputs.stores import rows_of_report
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import STAGES
from tasks.report import preferred

Found = TypeVar("Found")


@flow(name="distill", task_runner=dask_runner(), flow_run_name="distill-{recipe.name}")
@cause_in_state
def distill(
    recipe: Recipe, ipc: PositiveInt | None = None, changes: dict[str, Any] | None = None, root: str = "runs"
) -> dict[str, Any]:
    """Distil a data set: shard → encode → cluster → decode → train → evaluate → report.

    ipc      images per class, instead of the recipe's
    changes  other settings, dotted: {"decode.strength": 0.4}
    root     the folder of all artifacts
    """
    return execute(recipe, ipc, changes, root, only=None)


def execute(
    recipe: Recipe, ipc: int | None, changes: dict[str, Any] | None, root: str, *, only: str | None
) -> dict[str, Any]:
    """Run the DAG, or one stage of it, inside a flow. Returns what the closing table shows."""
    recipe = recipe.with_changes({**(changes or {}), **({} if ipc is None else {"ipc": ipc})})
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
    with watching(run):
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
def _stage_flow(stage: str) -> Flow[Any, dict[str, Any]]:
    @flow(
        name=stage,
        task_runner=dask_runner(),
        flow_run_name=f"{stage}-{{recipe.name}}",
        description=f"The stage {stage} alone; what it reads must be complete. Parameters as for distill.",
    )
    @cause_in_state
    def run_stage(
        recipe: Recipe, ipc: PositiveInt | None = None, changes: dict[str, Any] | None = None, root: str = "runs"
    ) -> dict[str, Any]:
        return execute(recipe, ipc, changes, root, only=stage)

    return run_stage


def __getattr__(name: str) -> Flow[Any, dict[str, Any]]:
    """The flow of a stage, made when it is asked for: `flows/distill.py:cluster`."""
    if name in STAGES:
        return _stage_flow(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
