"""One run over the DAG: which artifacts are complete, which tasks are submitted, and what they wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.artifact import Artifact, NotDone
from storage.index import Index
from tasks.config import STAGES, Recipe

CLASSES_PER_TASK = 25  # a mapped task costs about 0.1 s in Prefect


@dataclass
class Job:
    """One artifact of a run and what completes it. `units` is how many units it has, 1 for one made as a whole."""

    artifact: Artifact
    units: int = 1
    was_done: bool = False
    futures: list[Any] = field(default_factory=list)

    def progress(self) -> tuple[float, str]:
        """Share that is done, 0 to 1, and a note for people."""
        if self.units > 1 and (marked := self.artifact.num_marks()) < self.units:
            return marked / self.units, ""
        if self.artifact.is_done():
            return 1.0, ""
        done, total, note = self.artifact.progress() or (0, 1, "")
        return min(done / max(total, 1), 0.99), note


class Run:
    """Walks the DAG for one recipe. Adding a job submits its tasks, or finds its artifact complete.

    only  the one stage that may be worked on; its parents must be complete
    """

    def __init__(self, recipe: Recipe, root: Path, *, only: str | None = None) -> None:
        self.recipe, self.root, self.only = recipe, root.absolute(), only
        self.jobs: dict[str, Job] = {}
        self.index: Index | None = None

    def by_stage(self) -> Iterator[tuple[str, list[Job]]]:
        """The run's jobs, stage by stage."""
        for stage in STAGES:
            jobs = [job for job in self.jobs.values() if job.artifact.stage == stage]
            if jobs:
                yield stage, jobs

    def add(
        self,
        artifact: Artifact,
        task: Any,
        *arguments: Any,
        per_class: bool = False,
        units: int = 1,
    ) -> Artifact:
        """Make sure that a job completes the artifact; equal artifacts of several methods are one job.

        per_class  the task is mapped over batches of classes, which it takes as its last two arguments
        """
        if self.only not in (None, artifact.stage) or str(artifact) in self.jobs:
            return artifact
        parents = [self.jobs[str(p)] for p in artifact.parents.values() if str(p) in self.jobs]
        waiting = [future for parent in parents for future in parent.futures]
        settled = all(parent.was_done for parent in parents)
        job = Job(artifact, units, was_done=settled and artifact.is_done())
        self.jobs[str(artifact)] = job
        if job.was_done:
            return artifact
        if self.only:
            for parent in artifact.parents.values():
                _require(parent)
        batches = self._batches() if per_class else [()]
        job.futures = [task.submit(artifact, *arguments, *batch, wait_for=waiting) for batch in batches]
        return artifact

    def add_now(self, artifact: Artifact, task: Callable[..., Any], *arguments: Any) -> None:
        """Complete an artifact before going on, as everything else depends on what it holds."""
        if self.only not in (None, artifact.stage):
            return
        job = Job(artifact)
        before = _finished(artifact)
        task(artifact, *arguments)
        job.was_done = before is not None and _finished(artifact) == before
        self.jobs[str(artifact)] = job

    def wait(self) -> None:
        """Wait for every task, and note the jobs that had nothing to do. Raises the first error in the DAG's order."""
        for job in self.jobs.values():
            for future in job.futures:
                future.result()
            if job.futures and all(future.state.name == "Cached" for future in job.futures):
                job.was_done = True

    def _batches(self) -> list[tuple[tuple[str, ...], str]]:
        assert self.index is not None
        names: Sequence[str] = self.index.classes
        parts = [tuple(names[k : k + CLASSES_PER_TASK]) for k in range(0, len(names), CLASSES_PER_TASK)]
        return [(part, f"{part[0]}..{part[-1]}") for part in parts]


def _finished(artifact: Artifact) -> float | None:
    return artifact.record().finished if artifact.is_done() else None


def _require(artifact: Artifact) -> None:
    if not artifact.is_done():
        raise NotDone(
            f"{artifact} is not complete, which this stage needs: run the stage {artifact.stage!r} or the whole recipe"
        )


def link_newest(root: Path, recipe: str, artifacts: Mapping[str, Artifact]) -> Path:
    """Point `<root>/<recipe>/<name>` at the artifacts of the newest run, for people. Returns the folder."""
    folder = root / recipe
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_symlink() and old.name not in artifacts:
            old.unlink()
    for name, artifact in artifacts.items():
        link, fresh = folder / name, folder / f".{name}.partial"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("..") / artifact.stage / artifact.digest)
        fresh.replace(link)
    return folder
