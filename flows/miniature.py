"""The recipe of a plan in miniature, run on this machine to see what each kind of its works costs.

It goes through every stage that the run would, on a few images of a few classes, one seed and short trainings, in a
folder that vanishes; other cores are kept busy meanwhile, as they are in a run.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from flows.dag import distillation
from flows.plan import Cost, Listing, amount_of, is_wide, kind_of, size_of
from storage.artifact import Artifact
from storage.cores import BusyCores, num_cores
from storage.files import read_checked, sha256_of, write_checked
from storage.housekeeping import size_of as bytes_of
from storage.index import Index
from tasks.inputs.plan import Work
from tasks.inputs.real import source_of
from tasks.inputs.stores import indexed, some_classes
from tasks.recipe.recipe import Recipe

GROWTH = 2.0  # of its time, from one size to the next, about
KEPT = "plan.json"


@dataclass(frozen=True)
class Size:
    """Of a miniature: classes, images per class, distilled images per class, and the steps or epochs of a training."""

    classes: int
    images: int
    ipc: int
    steps: int


# As many images in both that are timed: what a training does with all of them is then no part of a step.
SIZES = (Size(2, 8, 1, 2), Size(10, 32, 2, 4), Size(10, 32, 4, 12))


class Miniature(Listing):
    """Does every work at once, and adds up what each kind took."""

    def __init__(self, root: Path, recipe: Recipe, others: BusyCores, *, count: bool) -> None:
        super().__init__(root)
        self.recipe, self.others, self.count = recipe, others, count
        self.costs: dict[str, Cost] = {}

    def do(self, work: Work) -> None:
        """The work, its floating-point operations counted or its time taken: counting takes time itself."""
        from torch.utils.flop_counter import FlopCounterMode

        counter = FlopCounterMode(display=False) if self.count else None
        wide = is_wide(work, self.recipe)
        start = time.monotonic()
        with counter or nullcontext(), _one_core() if counter else self.others.resting() if wide else nullcontext():
            for batch in work.batches or [()]:
                work.task.fn(work.artifact, *work.arguments, *batch)
        cost = self.costs.setdefault(kind_of(work), Cost())
        cost.seconds += (time.monotonic() - start) * (num_cores() if wide else 1)
        cost.works += 1
        cost.amount += amount_of(work, self.recipe)
        cost.size += size_of(work, self.recipe)
        cost.flops += counter.get_total_flops() if counter else 0
        cost.num_bytes += bytes_of(work.artifact.path)


@contextmanager
def _one_core() -> Iterator[None]:
    """So that no work is done by threads, whose operations are not counted."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before:
        os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)


def costs_of(recipe: Recipe, listing: Listing, seconds: float) -> dict[str, Cost]:
    """What a probe finds, or has found before: `<root>/<recipe>/plan.json` keeps it."""
    path = listing.root / recipe.name / KEPT
    told = recipe.model_dump(mode="json", exclude={"claim", "seeds", "minutes"})
    key = sha256_of([told, [field.name for field in fields(Cost)]])[:12]
    try:
        kept = read_checked(path)
    except (OSError, ValueError):
        kept = {}
    if key not in kept:
        kept[key] = {kind: asdict(cost) for kind, cost in probe(recipe, listing, seconds).items()}
        write_checked(path, kept)
    return {kind: Cost(**cost) for kind, cost in kept[key].items()}


def probe(recipe: Recipe, listing: Listing, seconds: float) -> dict[str, Cost]:
    """What each kind of work costs on this machine, of the second miniature or a larger one that fits into the
    seconds."""
    shard = next(work.artifact for work in listing.works.values() if work.artifact.stage == "shard")
    shard, index = indexed(shard)
    start, took, made = time.monotonic(), 0.0, list[dict[str, Cost]]()
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=listing.root) as folder, _alone(), BusyCores() as others:
        for number, size in enumerate(SIZES):
            if number > 1 and time.monotonic() - start + GROWTH * took > seconds:
                break
            begun, place = time.monotonic(), Path(folder) / str(number)
            _few_images(shard, index, size, place / "images")
            small = _small(recipe, size, place / "images")
            miniature = Miniature(place / "runs", small, others, count=number == 0)
            distillation(miniature, small)
            made.append(miniature.costs)
            took = time.monotonic() - begun
    counts, *timed = made
    for kind, cost in timed[-1].items():
        if len(timed) > 1 and kind in timed[-2]:
            cost.compare(timed[-2][kind])
        seen = counts.get(kind, Cost())
        cost.flops = seen.flops * cost.amount / (seen.amount or 1)
    return timed[-1]


def _small(recipe: Recipe, size: Size, images: Path) -> Recipe:
    changes: dict[str, Any] = {
        "minutes": None,
        "seeds": recipe.seeds[:1],
        "ipc": min(recipe.ipc, size.ipc),
        "data": {"source": "folder", "path": str(images), "tune_fraction": recipe.data.tune_fraction},
        "teacher.min_gain": 0,
        "decode.num_steps": min(recipe.decode.num_steps, size.steps),
        "train.num_epochs": size.steps,
    }
    lengths = dict.fromkeys(recipe.lengths, size.steps)
    methods = recipe.model_dump()["methods"]
    stand_ins = {name: {"decode": {"method": "random"}} for name in recipe.given}  # as a given set has its own number
    return recipe.with_changes({**changes, **lengths, "methods": {**methods, **stand_ins}})


def _few_images(shard: Artifact, index: Index, size: Size, folder: Path) -> None:
    """Images of some of the classes, and as many held out of each as a quarter of them, as a folder."""
    source = source_of(shard)
    for name in some_classes(index)[: size.classes]:
        for split, most in (("train", size.images), ("val", max(2, size.images // 4))):
            place = folder / split / name
            place.mkdir(parents=True)
            for k, location in enumerate(index.locations(index.rows(split, name)[:most])):
                source.open(location).save(place / f"{k}.jpeg", quality=95)


@contextmanager
def _alone() -> Iterator[None]:
    """With one thread, as a worker has, and without a word of what a miniature gives cause to warn of."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    try:
        with threadpool_limits(1):
            yield
    finally:
        logging.disable(logging.NOTSET)
        torch.set_num_threads(before)
