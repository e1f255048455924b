"""What a run will cost: its units from the index, the rest from the recipe itself in miniature, run on this machine.

The miniature goes through every stage that the run would, on a few images of a few classes, one seed and short
trainings, in a folder that vanishes; other cores are kept busy meanwhile, as they are in a run. What a stage took,
computed and wrote there is multiplied by how much more of the same the run has to do.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.dag import distillation
from flows.workers import GIB, THREAD_VARIABLES
from storage.artifact import Artifact
from storage.cores import num_cores
from storage.errors import UsageError
from storage.files import read_checked, sha256_of, write_checked
from storage.housekeeping import size_of as bytes_of
from storage.index import Index
from tasks.inputs.plan import Work
from tasks.inputs.real import source_of
from tasks.inputs.stores import index_of, indexed, some_classes
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import STAGES
from tasks.sample import PER_CLASS

PROBE_SECONDS = 50.0  # in which the miniature is made larger, as far as they reach
GROWTH = 6.0  # of its time, from one size to the next, about
TASK_SECONDS = 0.1  # that Prefect and Dask take for one
START_SECONDS = 25.0  # of server and workers
KEPT = "plan.json"
BUSY = "import numpy\na = numpy.ones((256, 256), numpy.float32)\nwhile True: a @ a"


@dataclass(frozen=True)
class Size:
    """Of a miniature: classes, images per class, distilled images per class, and the steps or epochs of a training."""

    classes: int
    images: int
    ipc: int
    steps: int


SIZES = (Size(2, 8, 1, 2), Size(10, 16, 2, 4), Size(10, 64, 10, 12))


@dataclass
class Cost:
    """Of one kind of work: how much of it there was, by which it is multiplied, and what that took.

    amount   e.g. images encoded, steps trained
    size     what its bytes grow with, e.g. images
    seconds  of one core, or of the GPU where the work is for one
    """

    amount: float = 0.0
    size: float = 0.0
    seconds: float = 0.0
    flops: float = 0.0
    num_bytes: float = 0.0


class Listing:
    """Stands where a run does: plans every work, and lists the source, which all the others are planned by."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.works: dict[str, Work] = {}

    def add(self, work: Work) -> Artifact:
        """Note the work once."""
        if self.works.setdefault(str(work.artifact), work) is work:
            self.do(work)
        return work.artifact

    def add_now(self, work: Work) -> Artifact:
        """List the source; what a run would do, which finds it done."""
        work.task.fn(work.artifact, *work.arguments)
        self.works[str(work.artifact)] = work
        return work.artifact

    def do(self, work: Work) -> None:
        """Nothing: it is a plan."""


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


def is_wide(work: Work, recipe: Recipe) -> bool:
    """Whether it takes all cores that are free."""
    trained = {"autoencoder": recipe.autoencoder.train, "prior": recipe.prior.train}
    return bool(trained.get(work.artifact.stage)) and not _has_gpu()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def kind_of(work: Work) -> str:
    """What takes about as long for as much: a stage, and the method or architecture that it is of."""
    config = work.artifact.config
    return " ".join(filter(None, [work.artifact.stage, config.get("method") or config.get("architecture")]))


def amount_of(work: Work, recipe: Recipe) -> float:
    """How much a work has to do, in what its time is proportional to."""
    artifact, index = work.artifact, index_of(work.artifact)
    training = sum(index.counts("train").values())
    match artifact.stage:
        case "autoencoder":
            return recipe.autoencoder.train.num_steps or 1 if recipe.autoencoder.train else 1
        case "prior":
            return recipe.prior.train.num_steps or 1 if recipe.prior.train else 1
        case "teacher":
            epochs = 0 if recipe.teacher.weights else recipe.teacher.num_epochs or 0
            return 3 * epochs * training + len(index.rows("val"))  # a step is forward, and twice that back
        case "sample":
            return PER_CLASS * len(some_classes(index)) * recipe.decode.num_steps
        case "cluster":
            return training * artifact.config["num_points"]
        case "decode":
            config = work.arguments[0]
            steps = max(1, round(config.num_steps * config.strength)) if config.method == "diffusion" else 1
            return _pictures(artifact) * (config.num_candidates if config.method == "diffusion" else 1) * steps
        case "label":
            return size_of(work, recipe)
        case "train":
            return _pictures(artifact.parents["decode"]) * work.arguments[0].num_epochs
        case "evaluate":
            return len(index.rows(work.arguments[0].config["split"]))
        case "measure":
            return sum(index.counts("train")[name] for name in some_classes(index))
    return size_of(work, recipe)


def size_of(work: Work, recipe: Recipe) -> float:
    """What the bytes of an artifact are proportional to: images for stores of images, 1 for a model."""
    artifact, index = work.artifact, index_of(work.artifact)
    match artifact.stage:
        case "encode":
            return sum(index.counts("train").values())
        case "view":
            return len(index.rows(artifact.config["split"]))
        case "cluster":
            return artifact.config["num_points"] * len(index.classes)
        case "decode":
            return _pictures(artifact)
        case "label":
            return _pictures(artifact.parents["decode"]) * artifact.config["num_epochs"]
    return 1


def _pictures(decode: Artifact) -> int:
    points = decode.parents["cluster"].config["num_points"] * len(index_of(decode).classes)
    return int(points * decode.config.get("num_draws", 1))


@dataclass
class StagePlan:
    """What a stage has to do yet, and how much of it is done."""

    stage: str
    units: int = 0
    done: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    num_bytes: float = 0.0


@dataclass
class Plan:
    """Of a run: its stages, and what is left of it in seconds of wall clock."""

    stages: dict[str, StagePlan] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def num_bytes(self) -> float:
        """To be written yet."""
        return sum(stage.num_bytes for stage in self.stages.values())


def listed(recipe: Recipe, root: Path) -> tuple[Recipe, Listing]:
    """The recipe with nothing left open, and all works of its run. Lists the images, unless that was done before."""
    listing = Listing(root)
    recipe, _ = distillation(listing, recipe)
    return recipe, listing


def counted(listing: Listing) -> Plan:
    """How many units a run has, and how many of them are there."""
    plan = Plan({stage: StagePlan(stage) for stage in STAGES})
    for work in listing.works.values():
        stage = plan.stages[work.artifact.stage]
        stage.units += work.units
        stage.done += round(_done(work) * work.units)
    return plan


def _done(work: Work) -> float:
    """Which share of it."""
    return 1.0 if work.artifact.is_done() else min(work.artifact.num_marks() / work.units, 0.99)


def estimated(plan: Plan, listing: Listing, recipe: Recipe, costs: dict[str, Cost], workers: int) -> Plan:
    """A plan of units with what it costs by a miniature's costs.

    A run takes as long as all of its work on all cores, but no less than the longest chain of what waits for another.
    """
    ends: dict[str, float] = {}
    total = dict.fromkeys((False, True), 0.0)  # by whether it is on a GPU
    for name, work in listing.works.items():
        left, stage = 1 - _done(work), plan.stages[work.artifact.stage]
        if not left:
            continue
        before = max(
            (ends.get(str(other), 0.0) for other in (*work.artifact.parents.values(), *work.reads)), default=0.0
        )
        cost = costs.get(kind_of(work)) or next(
            (costs[kind] for kind in costs if kind.split()[0] == stage.stage), Cost()
        )
        more = left * amount_of(work, recipe) / (cost.amount or 1)
        seconds = more * cost.seconds + len(work.batches or [()]) * TASK_SECONDS
        stage.seconds += seconds
        stage.flops += more * cost.flops
        stage.num_bytes += left * size_of(work, recipe) * cost.num_bytes / (cost.size or 1)
        on_gpu = work.gpu and _has_gpu()
        total[on_gpu] += seconds
        at_once = 1 if on_gpu else num_cores() if is_wide(work, recipe) else min(workers, len(work.batches or [()]))
        ends[name] = before + seconds / at_once
    plan.seconds = max(max(ends.values(), default=0.0), total[False] / workers, total[True] / _num_gpus())
    plan.seconds += START_SECONDS if plan.seconds else 0
    return plan


def _num_gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())


def probe(recipe: Recipe, listing: Listing) -> dict[str, Cost]:
    """What each kind of work costs on this machine, of a miniature as large as fits into about a minute."""
    shard = next(work.artifact for work in listing.works.values() if work.artifact.stage == "shard")
    shard, index = indexed(shard)
    start, counts, found = time.monotonic(), dict[str, Cost](), dict[str, Cost]()
    took = 0.0
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=listing.root) as folder, _alone(), BusyCores() as others:
        for number, size in enumerate(SIZES):
            if number > 1 and time.monotonic() - start + GROWTH * took > PROBE_SECONDS:
                break
            begun, place = time.monotonic(), Path(folder) / str(number)
            _few_images(shard, index, size, place / "images")
            small = _small(recipe, size, place / "images")
            miniature = Miniature(place / "runs", small, others, count=number == 0)
            distillation(miniature, small)
            found, took = miniature.costs, time.monotonic() - begun
            counts = counts or found
    for kind, cost in found.items():
        seen = counts.get(kind, Cost())
        cost.flops = seen.flops * cost.amount / (seen.amount or 1)
    return found


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
    return recipe.with_changes({**changes, **lengths})


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


class BusyCores:
    """All cores but one at work: what two of them do at once is less than twice what one does alone."""

    def __init__(self) -> None:
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
        self.processes = [
            subprocess.Popen([sys.executable, "-c", BUSY], env=environment)  # noqa: S603  this Python, and ours
            for _ in range(num_cores() - 1)
        ]

    def __enter__(self) -> BusyCores:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Not during the block."""
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)
        yield
        for process in self.processes:
            process.send_signal(signal.SIGCONT)


def costs_of(recipe: Recipe, listing: Listing) -> dict[str, Cost]:
    """What a probe finds, or has found before: `<root>/<recipe>/plan.json` keeps it."""
    path = listing.root / recipe.name / KEPT
    key = sha256_of(recipe.model_dump(mode="json", exclude={"claim", "seeds", "minutes"}))[:12]
    try:
        kept = read_checked(path)
    except (OSError, ValueError):
        kept = {}
    if key not in kept:
        kept[key] = {kind: asdict(cost) for kind, cost in probe(recipe, listing).items()}
        write_checked(path, kept)
    return {kind: Cost(**cost) for kind, cost in kept[key].items()}


def check_disk(plan: Plan, root: Path) -> None:
    """Raise UsageError where what is to be written does not fit."""
    free = shutil.disk_usage(root).free
    if plan.num_bytes > free:
        raise UsageError(
            f"the run writes about {plan.num_bytes / GIB:.1f} GiB and {root} has {free / GIB:.1f} GiB left: make room, "
            "or give another --root"
        )


def show_units(console: Console, plan: Plan) -> None:
    """Print how many units each stage has."""
    table = Table("stage", "units", "done")
    for stage in plan.stages.values():
        if stage.units:
            table.add_row(stage.stage, f"{stage.units:,}", f"{stage.done:,}")
    console.print(table)


def show(console: Console, plan: Plan, workers: int) -> None:
    """Print what is left of each stage, and of the run."""
    table = Table("stage", "units left", "TFLOP", "MiB to write", "seconds of a core")
    for stage in plan.stages.values():
        if left := stage.units - stage.done:
            flops = f"{stage.flops / 1e12:,.2f}" if stage.flops else "–"
            table.add_row(stage.stage, f"{left:,}", flops, f"{stage.num_bytes / 2**20:,.1f}", f"{stage.seconds:,.0f}")
    console.print(table)
    where = f"{workers} worker" + "s" * (workers > 1) + (f" and {_num_gpus()} GPU" if _has_gpu() else "")
    console.print(f"about {_in_words(plan.seconds)} with {where}", highlight=False)


def _in_words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:,.1f} h"
