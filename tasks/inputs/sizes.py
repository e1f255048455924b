"""How long models and students are trained of a recipe that says in minutes what a run may take (Recipe.minutes)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ddoq_core.train.architectures import together
from ddoq_core.train.protocol import num_batches
from storage.cores import BusyCores, num_cores
from storage.errors import UsageError
from storage.files import read_checked, sha256_of, write_checked
from storage.index import Index
from storage.lease import alone
from storage.memory import keep_memory
from tasks.inputs.checks import latents_of_recipe
from tasks.recipe.protocols import resolve
from tasks.recipe.recipe import Recipe

STUDENT = "train.num_epochs"
# Of the cores' minutes; what is left is for latents and pictures. A student's is a twentieth of a fifth, as five seeds
# of four methods have 20, and is the same where there are more, so that a method can be added to a run.
SHARES = {"autoencoder.train.num_steps": 0.05, "prior.train.num_steps": 0.48, "teacher.num_epochs": 0.1, STUDENT: 0.01}
STEPS_TIMED = 6  # and one before them that is not
AT_LEAST = 20


def sized(recipe: Recipe, index: Index, root: Path) -> Recipe:
    """The recipe with as many steps in the place of those that it leaves open as fit into its minutes on this machine,
    and students of no more epochs than fit.

    How long a step takes is measured, once for a root: `<root>/<recipe>/sizes.json` keeps what was found, so that the
    same command finds its models again, on another machine too.
    """
    if recipe.minutes is None:
        return recipe
    keep_memory()  # as the workers do, whose steps are timed here
    path, models = root / recipe.name / "sizes.json", ("minutes", "data", "images", "autoencoder", "teacher", "prior")
    with alone(path.with_suffix(".lock")):  # runs that start together go by the same measurement
        recipe = _with(recipe, index, path, recipe.left_open, models)
        return _with(recipe, index, path, [STUDENT], (*models, "ipc", "train"))


def _with(recipe: Recipe, index: Index, path: Path, names: list[str], told: tuple[str, ...]) -> Recipe:
    """The recipe with the numbers of these names, found by these of its parts, or kept from before."""
    key = sha256_of([recipe.model_dump(mode="json", include=set(told)), names])[:12]
    try:
        kept = read_checked(path)
    except (OSError, ValueError):
        kept = {}
    if key not in kept:
        kept[key] = {name: _fitting(recipe, index, name) for name in names}
        write_checked(path, kept)
    return recipe.with_changes(kept[key])


def _fitting(recipe: Recipe, index: Index, name: str) -> int:
    """Steps, or epochs, that take their share of the minutes; teachers and students are on one core each, beside others
    at work, the rest on all."""
    assert recipe.minutes is not None
    seconds = 60 * recipe.minutes * SHARES[name]
    if name == STUDENT:
        num_classes = len(index.classes)
        most = resolve(recipe.train, recipe.ipc, num_classes).num_epochs
        fits = seconds * num_cores() / _seconds_of_student(recipe, num_classes)
        return min(most, max(AT_LEAST, int(fits)))
    if name == "teacher.num_epochs":
        counts = index.counts("train")
        per_epoch = num_batches(sum(counts.values()), recipe.teacher.batch_size)
        of_step = sum(_seconds_of_teacher(recipe, member, len(counts)) for member in recipe.teacher.architectures)
        return max(1, int(seconds * num_cores() / (per_epoch * of_step)))
    of_step = _seconds_of_prior(recipe, index) if name.startswith("prior") else _seconds_of_autoencoder(recipe)
    return max(AT_LEAST, int(seconds / of_step))


class Watch:
    """A checkpoint that keeps nothing but when each step was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def load(self) -> None:
        return None

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        pass

    def report(self, done: int, total: int, note: str) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()  # a GPU is told what to do before it has done it
        self.times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Of a step, the median."""
        return float(np.median(np.diff(self.times)))


@contextmanager
def _one_of_the_workers() -> Iterator[None]:
    """With one thread, beside cores that are at work: more threads would wait for the core that another has."""
    from ddoq_core.parallel import single_threads

    with BusyCores(), single_threads(1):
        yield


def _seconds_of_autoencoder(recipe: Recipe) -> float:
    from ddoq_core.encode.training import train_autoencoder

    config, watch, side = recipe.autoencoder.train, Watch(), recipe.images.size_px
    assert config is not None
    images = np.random.default_rng(0).integers(0, 256, (config.batch_size, side, side, 3), np.uint8)
    shape = {**config.shape(side), "num_steps": 1 + STEPS_TIMED, "num_threads": num_cores()}
    train_autoencoder(images, **{**config.model_dump(), **shape}, checkpoint=watch)
    return watch.seconds


def _seconds_of_prior(recipe: Recipe, index: Index) -> float:
    from ddoq_core.decode.training import train_prior

    config, watch, shape = recipe.prior.train, Watch(), latents_of_recipe(recipe)
    assert config is not None
    if shape is None:
        raise UsageError(
            f"how large latents of {recipe.autoencoder.weights} are is not known before it was loaded: set "
            "prior.train.num_steps"
        )
    z = np.random.default_rng(0).normal(size=(config.batch_size, shape.channels, shape.side, shape.side))
    settings = {**config.model_dump(exclude={"flip"}), "num_steps": 1 + STEPS_TIMED, "num_threads": num_cores()}
    labels = np.arange(len(z)) % len(index.classes)
    train_prior(z.astype(np.float16), labels, len(index.classes), **settings, checkpoint=watch)
    return watch.seconds


def _seconds_of_student(recipe: Recipe, num_classes: int) -> float:
    """Of an epoch; one on mosaics takes as long."""
    from ddoq_core.train.networks import ClassifierSpec, build_classifier
    from ddoq_core.train.students import train_student

    protocol, side, seconds = resolve(recipe.train, recipe.ipc, num_classes), recipe.images.for_training.size_px, []
    batch_size = min(protocol.batch_size, recipe.ipc * num_classes)
    num = batch_size * (1 + STEPS_TIMED)
    images = np.random.default_rng(0).integers(0, 256, (num, side, side, 3), np.uint8)
    labels, weights = np.arange(num) % num_classes, np.ones(num)
    protocol = replace(protocol, num_epochs=1, batch_size=batch_size)
    judge = build_classifier(ClassifierSpec(together(recipe.teacher.architectures), num_classes, side)).eval()
    for architecture in recipe.train.architectures:
        watch, student = Watch(), build_classifier(ClassifierSpec(architecture, num_classes, side))
        with _one_of_the_workers():
            train_student(student, images, labels, weights, protocol, judge, 0, watch)
        seconds.append(watch.seconds)
    return recipe.ipc * num_classes / batch_size * float(np.mean(seconds))  # the last batch may be a small one


def _seconds_of_teacher(recipe: Recipe, architecture: str, num_classes: int) -> float:
    from ddoq_core.train.networks import ClassifierSpec, build_classifier
    from ddoq_core.train.protocol import Protocol
    from ddoq_core.train.teachers import train_teacher

    config, watch, side = recipe.teacher, Watch(), recipe.images.for_training.size_px
    num = config.batch_size * (1 + STEPS_TIMED)
    images = np.random.default_rng(0).integers(0, 256, (num, side, side, 3), np.uint8)
    protocol = Protocol(num_epochs=1, batch_size=config.batch_size, augmentation=config.augmentation)
    model = build_classifier(ClassifierSpec(architecture, num_classes, side))
    with _one_of_the_workers():
        train_teacher(model, images, np.arange(num) % num_classes, protocol, 0, watch)
    return watch.seconds
