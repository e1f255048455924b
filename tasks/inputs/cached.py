"""How a task tells Prefect that the store already held its result, and keeps a training that may be cut."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from prefect import State, task
from prefect.states import Completed

from storage.artifact import Artifact
from storage.files import write_whole
from storage.lease import leased_whole

SAVE_EVERY_SECONDS = 10.0
SAVE_SHARE = 20  # a save that takes long is followed by this many times as long without one
REPORT_EVERY_SECONDS = 0.3
HASH_BYTES = 32  # at the start of a saved state


def cached(artifact: Artifact) -> State:
    """The final state of a task that had nothing to do."""
    return Completed(name="Cached", message=f"{artifact} is complete", data=str(artifact))


def made_once(make: Callable[..., State | str]) -> Callable[..., State | str]:
    """The body of a task that makes an artifact as a whole: it has nothing to do where the artifact is complete, and
    waits for another run that makes it just now."""

    @wraps(make)
    def once(artifact: Artifact, *arguments: Any, **named: Any) -> State | str:
        if artifact.is_done():
            return cached(artifact)
        with leased_whole(artifact):
            return cached(artifact) if artifact.is_done() else make(artifact, *arguments, **named)

    return once


@task(name="cached", task_run_name="{stage}")
def show_cached(stage: str, artifacts: list[str]) -> State:
    """Show a stage as cached, all of whose artifacts are complete."""
    return Completed(name="Cached", message=f"complete: {', '.join(artifacts)}", data=stage)


class Progress:
    """Reports how far a unit is to whoever watches its artifact's folder, a few times a second at most."""

    def __init__(self, artifact: Artifact, unit: str = "") -> None:
        self.artifact, self.unit = artifact, unit
        self._reported = time.monotonic()

    def report(self, done: int, total: int, note: str = "") -> None:
        """Pass on that `done` of `total` are done."""
        if done == total or time.monotonic() - self._reported >= REPORT_EVERY_SECONDS:
            self.artifact.report_progress(done, total, note, unit=self.unit)
            self._reported = time.monotonic()


class DiskCheckpoint(Progress):
    """The state of a training in its artifact's folder; see ddoq_core.fitting.Checkpoint."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact)
        self._saved, self._wait = time.monotonic(), SAVE_EVERY_SECONDS

    def load(self) -> dict[str, Any] | None:
        """The state last saved, or None. A file that is not as it was saved is dropped: training starts over."""
        path = self.artifact.checkpoint_path
        if not path.exists():
            return None
        import torch

        data = path.read_bytes()
        if hashlib.sha256(data[HASH_BYTES:]).digest() != data[:HASH_BYTES]:  # torch itself reads flipped numbers
            path.unlink()
            return None
        return torch.load(io.BytesIO(data[HASH_BYTES:]), map_location="cpu", weights_only=True)

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write the state, every few seconds, but in no more than a twentieth of the time."""
        if time.monotonic() - self._saved < self._wait:
            return
        import torch

        start = time.monotonic()
        buffer = io.BytesIO()
        torch.save(state(), buffer)
        data = buffer.getvalue()
        write_whole(self.artifact.checkpoint_path, hashlib.sha256(data).digest() + data)
        self._saved = time.monotonic()
        self._wait = max(SAVE_EVERY_SECONDS, SAVE_SHARE * (self._saved - start))
