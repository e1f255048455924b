"""One run over the DAG: which artifacts are complete, which tasks are submitted, and what they wait for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.publish import Publisher
from flows.runners import ask_workers, placed, result_of, shared_work
from storage.artifact import Artifact, NotDone
from tasks.inputs.plan import Work
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import COMPARE, STAGES

POLL_SECONDS = 0.2


@dataclass
class Job:
    """One artifact of a run and what completes it. `units` is how many units it has, 1 for one made as a whole."""

    artifact: Artifact
    units: int = 1
    was_done: bool = False
    futures: list[Any] = field(default_factory=list)
    _is_complete: bool = False  # as far as progress is concerned: it is looked at again and again

    def progress(self) -> tuple[float, str]:
        """Share that is done, 0 to 1, and a note for people."""
        marked = self.artifact.num_marks() if self.units > 1 and not self._is_complete else 0
        self._is_complete = self._is_complete or (marked in (0, self.units) and self.artifact.is_done())
        if self._is_complete:
            return 1.0, ""
        share, note = self.artifact.progress()
        return min((marked + share) / self.units, 0.99), note


class Run:
    """Walks the DAG. Adding a job submits its tasks, or finds its artifact complete.

    only  the one stage that may be worked on; its parents must be complete
    """

    def __init__(self, root: Path, recipe: Recipe, *, only: str | None = None) -> None:
        self.root, self.recipe, self.only = root.absolute(), recipe, only
        self.jobs: dict[str, Job] = {}
        self.publish = Publisher()

    def key(self, what: str) -> str:
        """Under which Prefect keeps an artifact of this run, and of other runs of the same recipe."""
        return f"ddoq-{self.recipe.name}-{what}"

    def by_stage(self) -> Iterator[tuple[str, list[Job]]]:
        """The run's jobs, stage by stage."""
        for stage in (*STAGES, COMPARE):
            jobs = [job for job in self.jobs.values() if job.artifact.stage == stage]
            if jobs:
                yield stage, jobs

    def add(self, work: Work) -> Artifact:
        """Make sure that a job completes the artifact; equal artifacts of several methods are one job."""
        artifact = work.artifact
        if self.only not in (None, artifact.stage) or str(artifact) in self.jobs:
            return artifact
        needed = (*artifact.parents.values(), *work.reads)
        before = [self.jobs[str(other)] for other in needed if str(other) in self.jobs]
        waiting = [future for other in before for future in other.futures]
        settled = all(other.was_done for other in before)
        job = Job(artifact, work.units, was_done=artifact.mend() and settled)
        self.jobs[str(artifact)] = job
        if job.was_done:
            return artifact
        if self.only:
            for other in needed:
                if str(other) not in self.jobs:
                    _require(other)
        share = {"share": shared_work} if work.shares else {}
        ask_workers(self.root, self.recipe.places)
        with placed(gpu=work.gpu):
            job.futures = [
                work.task.submit(artifact, *work.arguments, *batch, **share, wait_for=waiting)
                for batch in work.batches or [()]
            ]
        return artifact

    def add_now(self, work: Work) -> Artifact:
        """Complete an artifact before going on, as everything else depends on what it holds."""
        artifact = work.artifact
        if self.only in (None, artifact.stage):
            artifact.mend()
            before = _finished(artifact)
            job = self.jobs[str(artifact)] = Job(artifact, was_done=before is not None)
            work.task(artifact, *work.arguments)
            job.was_done = before is not None and _finished(artifact) == before
        return artifact

    def wait(self) -> None:
        """Wait for every task, and note the jobs that had nothing to do. Raises an error as soon as a task has one."""
        waiting = [future for job in self.jobs.values() for future in job.futures]
        while waiting:
            left = []
            for future in waiting:  # in the DAG's order: a cause comes before its effects
                if future.wrapped_future.done():
                    result_of(future)
                else:
                    left.append(future)
            waiting = left
            time.sleep(POLL_SECONDS if waiting else 0)
        for job in self.jobs.values():
            if job.futures and all(future.state.name == "Cached" for future in job.futures):
                job.was_done = True


def _finished(artifact: Artifact) -> float | None:
    return artifact.record().finished if artifact.is_done() else None


def _require(artifact: Artifact) -> None:
    if not artifact.is_done():
        raise NotDone(
            f"{artifact} is not complete, which this stage needs: run the stage {artifact.stage!r} or the whole recipe"
        )


def link_newest(root: Path, recipe: str, artifacts: Mapping[str, Artifact]) -> None:
    """Point `<root>/<recipe>/<name>` at the artifacts of the newest run, for people."""
    folder = root / recipe
    for name, artifact in artifacts.items():
        link(folder, name, artifact)
    for old in folder.iterdir():
        if old.is_symlink() and old.name not in artifacts and old.name != COMPARE:
            old.unlink()


def link(folder: Path, name: str, artifact: Artifact) -> Path:
    """Point `<folder>/<name>` at an artifact. Returns the link."""
    folder.mkdir(parents=True, exist_ok=True)
    at, fresh = folder / name, folder / f".{name}.partial"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path("..") / artifact.stage / artifact.digest)
    return fresh.replace(at)
