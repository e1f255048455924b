"""What a run will cost: its units from the index, the rest from the recipe itself in miniature (flows.miniature), where
what a stage took, computed and wrote is multiplied by how much more of the same the run has to do.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.dag import distillation
from flows.workers import GIB
from storage.artifact import Artifact
from storage.cores import num_cores
from storage.errors import UsageError
from tasks.inputs.plan import Work
from tasks.inputs.stores import index_of, some_classes
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import STAGES
from tasks.sample import PER_CLASS

TASK_SECONDS = 0.05  # that Prefect and Dask take for one
START_SECONDS = 20.0  # of server and workers


@dataclass
class Cost:
    """Of one kind of work: how much of it there was, by which it is multiplied, and what that took.

    works    of the kind
    amount   e.g. images encoded, steps trained
    size     what its bytes grow with, e.g. images
    seconds  of one core, or of the GPU where the work is for one
    once     of these, what each work takes however much it is, e.g. to load a model
    """

    works: int = 0
    amount: float = 0.0
    size: float = 0.0
    seconds: float = 0.0
    once: float = 0.0
    flops: float = 0.0
    num_bytes: float = 0.0

    def per_work(self) -> tuple[float, float]:
        """Amount and seconds."""
        return self.amount / self.works, self.seconds / self.works

    def compare(self, less: Cost) -> None:
        """Find what a work takes once, by a miniature in which it had less to do."""
        (more, longer), (few, short) = self.per_work(), less.per_work()
        if more > few:
            pace = min(max(longer - short, 0) / (more - few), longer / more)
            self.once = longer - pace * more

    def seconds_of(self, share: float, amount: float) -> float:
        """Of a share of a work."""
        own, seconds = self.per_work() if self.works else (1.0, 0.0)
        return self.once + share * amount * (seconds - self.once) / (own or 1)


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
        """List the source, which a run then finds done; an index that is there is not compared with it again."""
        if not work.artifact.is_done():
            work.task.fn(work.artifact, *work.arguments)
        self.works[str(work.artifact)] = work
        return work.artifact

    def do(self, work: Work) -> None:
        """Nothing: it is a plan."""


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
            is_trained = not recipe.teacher.weights and "member-0" not in artifact.parents
            epochs = recipe.teacher.num_epochs or 0 if is_trained else 0
            return 3 * epochs * training + len(index.rows("val"))  # a step is forward, and twice that back
        case "sample":
            return PER_CLASS * len(some_classes(index)) * recipe.decode.num_steps
        case "cluster":
            return training * artifact.config["num_points"]
        case "decode":
            config = work.arguments[0]
            steps = max(1, round(config.num_steps * config.strength)) if config.method == "diffusion" else 1
            return _pictures(artifact) * (config.num_candidates if config.selects else 1) * steps
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
    points = decode.parents.get("cluster", decode).config["num_points"] * len(index_of(decode).classes)
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
        amount = amount_of(work, recipe)
        more = left * amount / (cost.amount or 1)
        seconds = cost.seconds_of(left, amount) + len(work.batches or [()]) * TASK_SECONDS
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
