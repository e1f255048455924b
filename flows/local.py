"""Running a flow in this process, for the command line. Imports Prefect: a server must have been chosen before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storage.artifact import NotDone
from tasks.config import Recipe


class RunFailed(RuntimeError):
    """A stage failed; the message is the first cause."""


def check(recipe: Recipe) -> None:
    """Raise, before anything starts, for data that cannot serve the recipe."""
    from tasks.shard import check_source

    check_source(recipe)


def prepare() -> None:
    """Import what takes long while the server starts."""
    import flows.distill  # noqa: F401


def execute(
    recipe: Recipe, root: Path, *, only: str | None, cluster: str | None, workers: int | None
) -> dict[str, Any]:
    """Run `distill` or one stage's flow here. Raises RunFailed."""
    from flows import distill as flows
    from flows.runners import dask_runner, local_runner

    chosen = getattr(flows, only or "distill")
    idle = only is None and nothing_to_do(recipe, root)
    runner = local_runner() if idle else dask_runner(cluster, workers)
    try:
        return chosen.with_options(task_runner=runner)(recipe, root=str(root))
    except NotDone:
        raise
    except Exception as error:
        raise RunFailed(f"{type(error).__name__}: {error}") from error


def nothing_to_do(recipe: Recipe, root: Path) -> bool:
    """Whether every artifact of the recipe is complete."""
    from flows.dag import distillation
    from flows.run import Run

    plan = Run(recipe, root, submit=False)
    try:
        distillation(plan)
    except NotDone:
        return False
    return not plan.pending
