"""What a run finds, told to a tracker of experiments: trackio, wandb, or any module with their interface.

Off unless DDOQ_TRACK names one. Everything is read from finished artifacts: no task knows of it, and a run that was cut
tells the next time what it had. It is courtesy: its first failure is told in one line, and the run goes on without it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from storage.errors import UsageError, first_line
from storage.names import without_places

if TYPE_CHECKING:  # the command line loads this before it knows what it will do
    from flows.run import Run
    from storage.artifact import Artifact

TRACK = "DDOQ_TRACK"
INTERFACE = ("init", "log", "finish", "Image", "Table")  # of wandb, which others took over
POLL_SECONDS, LAST_SECONDS = 2.0, 60.0
PICTURES = {"pictures": "pictures.png", "results-figure": "results.png"}  # of a report


def tracker(name: str | None = None) -> Any:
    """The module that is named, or else by DDOQ_TRACK; None for none. Raises UsageError for one that cannot be had."""
    name = os.environ.get(TRACK, "") if name is None else name
    if not name:
        return None
    os.environ.setdefault("WANDB_CONSOLE", "off")  # the run's own bars stay what they are
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        module = import_module(name)
        import_module("pandas")
    except ImportError as error:
        raise UsageError(
            f"{TRACK}={name}: {first_line(error)}: pip install 'ddoq[track]' for wandb, pip install pandas {name} for "
            "another, or leave it out"
        ) from error
    if lacking := [word for word in INTERFACE if not hasattr(module, word)]:
        raise UsageError(f"{TRACK}={name} has no {', '.join(lacking)}: name trackio, wandb, or a module like these")
    return module


@contextmanager
def tracked(run: Run) -> Iterator[None]:
    """Tell the tracker, if there is one, of each artifact of a run as soon as it is complete, while the block runs."""
    module = tracker()
    if module is None:
        yield
        return
    teller = _Teller(run, module)
    thread = threading.Thread(target=teller.tell, daemon=True, name="ddoq-tracking")
    thread.start()
    try:
        yield
    finally:
        teller.stop.set()
        thread.join(timeout=LAST_SECONDS)
        if thread.is_alive():
            _warn(f"no answer within {LAST_SECONDS:.0f} s")


def _warn(reason: str) -> None:
    told = f"the tracker hears no more of this run, which goes on ({reason}); all of it is in the run's folder"
    logging.getLogger(__name__).warning(told)


class _Teller:
    def __init__(self, run: Run, module: Any) -> None:
        self.run, self.module, self.stop = run, module, threading.Event()
        self.told: set[str] = set()

    def tell(self) -> None:
        """Look for complete artifacts until told to stop, and once more then."""
        recipe = self.run.recipe
        try:
            config = without_places(recipe.model_dump(mode="json"))
            self.module.init(project="ddoq", name=f"{recipe.name}-ipc{recipe.ipc}", config=config)
            while not self.stop.wait(POLL_SECONDS):
                self._look()
            self._look()
            self.module.finish()
        except Exception as error:
            _warn(first_line(error) or type(error).__name__)

    def _look(self) -> None:
        from tasks.inputs.stores import REPORT

        for name, job in list(self.run.jobs.items()):
            if name not in self.told and job.progress()[0] == 1:
                self.told.add(name)
                for values in entries(job.artifact):
                    self.module.log(values)
                if job.artifact.stage == REPORT:
                    self.module.log(self._of_report(job.artifact))

    def _of_report(self, report: Artifact) -> dict[str, Any]:
        """The methods' table, the ledger of what they cost, and pictures."""
        from tasks.inputs.stores import REPORT, rows_of_report
        from tasks.pages.costs import ledger

        rows = [{k: v for k, v in row.items() if k != "top1"} for row in rows_of_report(report)]
        folder = report.path / REPORT
        pictures = {f"report/{name}": self.module.Image(str(folder / file)) for name, file in PICTURES.items()}
        return {"report/results": self._table(rows), "report/cost": self._table(list(ledger(report))), **pictures}

    def _table(self, rows: list[dict[str, Any]]) -> Any:
        # trackio takes names of columns in no other way
        return self.module.Table(dataframe=import_module("pandas").DataFrame(rows))


def entries(artifact: Artifact) -> Iterator[dict[str, float]]:
    """What is logged of a complete artifact, one after the other: each mean of its training losses, with the share of
    the training that was done then; last its other numbers and the seconds that it took."""
    record = artifact.record()
    name = artifact.stage if artifact.label == artifact.stage else f"{artifact.stage}/{artifact.label}"
    losses = record.facts.get("losses") or []
    for k, loss in enumerate(losses):
        yield {f"{name}/loss": float(loss), f"{name}/done": (k + 1) / len(losses)}
    numbers = {key: value for key, value in record.facts.items() if isinstance(value, int | float)}
    seconds = {f"seconds/{part}": spent for part, spent in record.seconds.items()}
    yield {f"{name}/{key}": float(value) for key, value in {**numbers, **seconds}.items()}
