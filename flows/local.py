"""Running a flow in this process, for the command line.

Imports Prefect only to run: a server must have been chosen before, and what cannot be is refused without.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from flows.errors import GO_ON, RunFailed
from flows.server import ServerError
from flows.tracking import TRACK, tracker
from storage.artifact import NotDone
from storage.errors import UsageError
from tasks.inputs.checks import check_models, check_prior
from tasks.recipe.grid import Grid
from tasks.recipe.matrix import Matrix
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import COMPARE, STAGES


def check_settings(recipe: Recipe) -> None:
    """Raise for models that cannot serve the recipe, whatever its data are, and for a tracker that cannot be had."""
    check_models(recipe)
    tracker()


def track(module: str | None) -> str | None:
    """Choose the tracker of this process's runs, see flows.tracking; None leaves it to DDOQ_TRACK."""
    if module is not None:
        os.environ[TRACK] = module
    return module


def check(recipe: Recipe, root: Path, flow: str, *others: Recipe) -> None:
    """Raise, before anything starts, for data, weights or given sets that cannot serve the recipe or, on the same data,
    the others, and for a stage without them."""
    from tasks.inputs.data import check_source, shard_artifact
    from tasks.inputs.stores import indexed
    from tasks.sets.read import check_given

    if flow in STAGES and flow != "shard":
        indexed(shard_artifact(root.absolute(), recipe.data))
    classes = check_source(recipe, root)
    check_prior(recipe, classes)
    for each in (recipe, *others):
        check_given(each, classes)


def wholes(
    recipe: Recipe, matrix: Matrix | None = None, grid: Grid | None = None, method: str | None = None
) -> list[Recipe]:
    """The recipe with all the methods that a flow makes of it, of a comparison at each number of images per class, the
    most first."""
    if matrix is not None:
        return [matrix.recipe(recipe, ipc) for ipc in sorted(matrix.ipc, reverse=True)]
    return [recipe if grid is None else grid.recipe(recipe, method)]


def check_writable(root: Path) -> None:
    """Raise UsageError for a run root that cannot be written."""
    probe = root / f".write-{os.getpid()}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UsageError(f"run root {root} cannot be written ({error.strerror}): give another with --root") from error


def prepare() -> None:
    """Import what takes long while the server starts, and keep Prefect's events from waiting for one that is gone."""
    from prefect.events.clients import PrefectEventsClient
    from prefect.events.worker import EventsWorker

    import flows.compare
    import flows.tune  # noqa: F401

    EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=1)  # of 10 with a second between them
    logging.getLogger(EventsWorker.__name__).setLevel(logging.CRITICAL)


def execute(name: str, recipe: Recipe, root: Path, *, cluster: str | None, workers: int, **more: Any) -> dict[str, Any]:
    """Run `distill`, `compare`, `tune` or one stage's flow here, with its own parameters. Raises RunFailed,
    ServerError."""
    from httpx import HTTPStatusError, TransportError

    from flows import compare, distill, tune
    from flows.runners import dask_runner

    chosen = getattr({COMPARE: compare, tune.TUNE: tune}.get(name, distill), name)
    flow = chosen.with_options(task_runner=dask_runner(cluster, workers))
    found: list[dict[str, Any]] = []
    flow.fn = _keeping(flow.fn, found)
    try:
        return flow(recipe, root=str(root), **more)
    except NotDone:
        raise
    except Exception as error:
        if found:  # all is on disk: only Prefect did not hear of it
            return found[0]
        if isinstance(error, TransportError | HTTPStatusError):
            raise ServerError(f"the Prefect API failed ({error}): {GO_ON}") from error
        raise RunFailed(f"{type(error).__name__}: {error}") from error


def _keeping(body: Callable[..., dict[str, Any]], found: list[dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A flow's body that also appends what it returns to a list."""

    @wraps(body)
    def kept(*given: Any, **named: Any) -> dict[str, Any]:
        found.append(body(*given, **named))
        return found[0]

    return kept
