"""Running a flow in this process, for the command line. Imports Prefect: a server must have been chosen before."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from storage.artifact import NotDone
from tasks.recipe.settings import COMPARE, Recipe


class RunFailed(RuntimeError):
    """A stage failed; the message is the first cause."""


def check(recipe: Recipe, root: Path) -> None:
    """Raise, before anything starts, for data or weights that cannot serve the recipe."""
    from tasks.inputs.checks import check_prior
    from tasks.shard import check_source

    check_prior(recipe, check_source(recipe, root))


def prepare() -> None:
    """Import what takes long while the server starts."""
    import flows.compare
    import flows.distill  # noqa: F401


def execute(
    name: str, recipe: Recipe, root: Path, *, cluster: str | None, workers: int | None, **more: Any
) -> dict[str, Any]:
    """Run `distill`, `compare` or one stage's flow here, with its own parameters. Raises RunFailed."""
    from flows import compare, distill
    from flows.runners import dask_runner

    chosen = getattr(compare if name == COMPARE else distill, name)
    try:
        return chosen.with_options(task_runner=dask_runner(cluster, workers))(recipe, root=str(root), **more)
    except NotDone:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise RunFailed(
                f"{error.strerror} for {root}: make room, and run the same command again to go on"
            ) from error
        raise RunFailed(f"{type(error).__name__}: {error}") from error
