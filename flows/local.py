"""Running a flow in this process, for the command line.

Imports Prefect only to run: a server must have been chosen before, and what cannot be is refused without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.errors import RunFailed
from storage.artifact import NotDone
from tasks.inputs.checks import check_models, check_prior
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import COMPARE


def check_settings(recipe: Recipe) -> None:
    """Raise for models that cannot serve the recipe, whatever its data are."""
    check_models(recipe)


def check(recipe: Recipe, root: Path) -> None:
    """Raise, before anything starts, for data or weights that cannot serve the recipe."""
    from tasks.inputs.data import check_source

    check_prior(recipe, check_source(recipe, root))


def prepare() -> None:
    """Import what takes long while the server starts."""
    import flows.compare
    import flows.distill  # noqa: F401


def execute(name: str, recipe: Recipe, root: Path, *, cluster: str | None, workers: int, **more: Any) -> dict[str, Any]:
    """Run `distill`, `compare` or one stage's flow here, with its own parameters. Raises RunFailed."""
    from flows import compare, distill
    from flows.runners import dask_runner

    chosen = getattr(compare if name == COMPARE else distill, name)
    try:
        return chosen.with_options(task_runner=dask_runner(cluster, workers))(recipe, root=str(root), **more)
    except NotDone:
        raise
    except Exception as error:
        raise RunFailed(f"{type(error).__name__}: {error}") from error
