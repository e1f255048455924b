"""Progress of a run, read from the store: bars on a terminal, lines in a log, artifacts in Prefect."""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from flows.run import Run

POLL_SECONDS = 1.0
PUBLISH_SECONDS = 10.0
LINE_SECONDS = 60.0  # between lines of a log that tell how far a stage is


@contextmanager
def watching(run: Run, console: Console | None = None) -> Iterator[None]:
    """Show the progress of the run's stages while the block runs."""
    watcher = _Watcher(run, console or Console(stderr=True, markup=False, emoji=False))
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(watcher.watch,), daemon=True, name="ddoq-progress")
    thread.start()
    try:
        yield
    finally:
        watcher.stop.set()
        thread.join(timeout=10)


class Move(NamedTuple):
    """The share of a stage that was done at a moment, in seconds."""

    share: float
    at: float


class Pace:
    """How fast a stage did the newer half of what it has done: what ran besides may have ended, what it waited for may
    have come."""

    def __init__(self) -> None:
        self.moves: deque[Move] = deque()

    def left(self, now: Move) -> float | None:
        """The seconds that are left, by the pace and by the clock since the last move; None if that is not known, as of
        a stage that stands still for longer than it should have taken."""
        if self.moves and now.share < self.moves[-1].share:
            self.moves.clear()  # a task that was ended began anew
        if now.share > 0 and (not self.moves or now.share != self.moves[-1].share):
            self.moves.append(now)
            while len(self.moves) > 2 and self.moves[1].share <= now.share / 2:
                self.moves.popleft()
        if len(self.moves) < 2 or now.share >= 1:
            return None
        first, last = self.moves[0], self.moves[-1]
        left = (last.at - first.at) * (1 - now.share) / (last.share - first.share) - (now.at - last.at)
        return left if left > 0 else None


class _Watcher:
    def __init__(self, run: Run, console: Console) -> None:
        self.run, self.stop = run, threading.Event()
        self.told: set[str] = set()
        self.paces: dict[str, Pace] = {}
        self.start, self.spoke = time.monotonic(), dict[str, float]()
        self.bars: dict[str, TaskID] = {}
        self.published: dict[str, tuple[UUID | None, float]] = {}
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]:>9}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.console = console

    def watch(self) -> None:
        """Look at the store until told to stop, and once more then."""
        rounds_per_publish = round(PUBLISH_SECONDS / POLL_SECONDS)
        with self.progress:
            rounds = 0
            while not self.stop.wait(POLL_SECONDS):
                rounds += 1
                self._look(publish=rounds % rounds_per_publish == 0)
            self._look(publish=True)

    def _look(self, *, publish: bool) -> None:
        for stage, all_jobs in list(self.run.by_stage()):
            jobs = [job for job in all_jobs if not job.was_done]
            if not jobs:
                continue
            shares, notes = zip(*(job.progress() for job in jobs), strict=True)
            units = sum(job.units for job in jobs)
            done = sum(share * job.units for share, job in zip(shares, jobs, strict=True))
            share = done / units
            told = (next((note for note in notes if note), ""), self._left(stage, share))
            self._show(stage, share, f"{int(done + 1e-9)}/{units}", ", ".join(part for part in told if part))
            if publish:
                self._publish(stage, share)

    def _left(self, stage: str, share: float) -> str:
        """How long a stage will take yet, for people; "" if that is not known."""
        left = self.paces.setdefault(stage, Pace()).left(Move(share, time.monotonic()))
        return "" if left is None else f"{timedelta(seconds=round(left))} left"

    def _show(self, stage: str, share: float, count: str, note: str) -> None:
        if stage not in self.bars:
            self.bars[stage] = self.progress.add_task(stage, total=1.0, count=count, note=note)
        self.progress.update(self.bars[stage], completed=share, count=count, note=note)
        if share >= 1 and stage not in self.told:
            self.told.add(stage)
            if not self.console.is_terminal:
                self.console.print(f"{stage}: {count} done")
        elif (
            0 < share < 1
            and not self.console.is_terminal
            and time.monotonic() - self.spoke.setdefault(stage, self.start) > LINE_SECONDS
        ):
            self.console.print(f"{stage}: {count}, {share:.0%}" + (f", {note}" if note else ""))
            self.spoke[stage] = time.monotonic()

    def _publish(self, stage: str, share: float) -> None:
        artifact_id, before = self.published.get(stage, (None, -1.0))
        if artifact_id is None:
            made = self.run.publish(create_progress_artifact, share * 100, key=self.run.key(f"progress-{stage}"))
            artifact_id = cast(UUID | None, made)
        elif share != before:
            self.run.publish(update_progress_artifact, artifact_id, share * 100)
        self.published[stage] = (artifact_id, share)
