"""Running a flow in this process, for the command line. Imports Prefect: a server must have been chosen before."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from storage.artifact import NotDone
from tasks.config import Recipe


class RunFailed(RuntimeError):
    """A stage failed; the message is the first cause."""


def check(recipe: Recipe, root: Path) -> None:
    """Raise, before anything starts, for data or weights that cannot serve the recipe."""
    from tasks.prior_check import check_prior
    from tasks.shard import check_source

    check_prior(recipe, check_source(recipe, root))


def prepare() -> None:
    """Import what takes long while the server starts."""
    import flows.distill  # noqa: F401


def execute(
    recipe: Recipe, root: Path, *, only: str | None, cluster: str | None, workers: int | None
) -> dict[str, Any]:
    """Run `distill` or one stage's flow here. Raises RunFailed."""
    from flows import distill as flows
    from flows.runners import dask_runner

    chosen = getattr(flows, only or "distill")
    try:
        return chosen.with_options(task_runner=dask_runner(cluster, workers))(recipe, root=str(root))
    except NotDone:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise RunFailed(
                f"{error.strerror} for {root}: make room, and run the same command again to go on"
            ) from error
        raise RunFailed(f"{type(error).__name__}: {error}") from error
