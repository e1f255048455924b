"""Checks of what a GPU may do otherwise than a CPU, for `tests.bench.gpu`: in memory that is short, after a training
that was killed, with many classes at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddoq_core import quantize
from ddoq_core.cluster.batched import quantize_batch
from ddoq_core.devices import best_device
from ddoq_core.encode.autoencoder import Autoencoder, pictures_of
from ddoq_core.fitting import Checkpoint
from ddoq_core.memory import HalvingBatches
from ddoq_core.train.networks import Classifier, ClassifierSpec, build_classifier
from ddoq_core.train.students import train_student
from storage.artifact import Artifact
from tasks.inputs.cached import DiskCheckpoint
from tasks.recipe.protocols import protocol_of
from tasks.recipe.recipe import Recipe
from tests.bench.latents import low_rank
from tests.bench.train import Silent

NUM_CLASSES = 1000  # of ImageNet-1K
KILLED_AFTER = 3  # steps


class Training:
    """Students of random pictures, labelled by a teacher of their own architecture."""

    def __init__(self, recipe: Recipe, num: int) -> None:
        self.recipe, size_px = recipe, recipe.images.for_training.size_px
        self.spec = ClassifierSpec(recipe.train.architectures[0], NUM_CLASSES, size_px)
        self.teacher = build_classifier(self.spec, seed=1).eval()
        self.images = np.random.default_rng(0).integers(0, 256, (num, size_px, size_px, 3), dtype=np.uint8)

    def fit(self, student: Classifier, num: int, checkpoint: Checkpoint, **changes: int) -> None:
        """Train a student on so many pictures."""
        protocol = replace(protocol_of(self.recipe, "ddoq", NUM_CLASSES), **changes)
        images, labels = self.images[:num], np.arange(num) % NUM_CLASSES
        train_student(student, images, labels, np.ones(num), protocol, self.teacher, 0, checkpoint)

    def weights(self, checkpoint: Checkpoint) -> torch.Tensor:
        """The weights (p,) of a new student after eight steps."""
        student = build_classifier(self.spec)
        self.fit(student, len(self.images), checkpoint, num_epochs=2, batch_size=len(self.images) // 4)
        return torch.cat([p.detach().flatten() for p in student.parameters()]).cpu()


class Ended(Exception):
    """A training is killed."""


class Steps(DiskCheckpoint):
    """Counts the steps of a training, and after so many saves its state and kills it."""

    def __init__(self, artifact: Artifact, most: int | None = None) -> None:
        super().__init__(artifact)
        self.num, self.most = 0, most

    def report(self, done: int, total: int, note: str = "") -> None:
        self.num += 1

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        if self.num == self.most:
            self._wait = 0.0
            super().save(state)
            raise Ended


def resuming(recipe: Recipe) -> dict[str, float]:
    """A student that was killed and resumed, and one trained again, against the first one."""
    training = Training(recipe, 32)
    first, again = training.weights(Silent()), training.weights(Silent())
    with tempfile.TemporaryDirectory() as folder:
        artifact = Artifact(Path(folder), "train", 1, {})
        with suppress(Ended):
            training.weights(Steps(artifact, KILLED_AFTER))
        rest = Steps(artifact)
        resumed = training.weights(rest)
    far = {name: float((x - first).norm() / first.norm()) for name, x in (("resumed", resumed), ("repeated", again))}
    return {**far, "resumed_steps": rest.num}


def inertias(num_images: int, num_points: int) -> dict[str, float]:
    """Batched k-means against one class after the other."""
    classes = [low_rank(num_images, 4096, seed=c) for c in range(2)]
    batch = quantize_batch(classes, num_points, seeds=range(2))
    single = [quantize(z, num_points, seed=c) for c, z in enumerate(classes)]
    return {"inertia_over_single": sum(q.inertia for q in batch) / sum(q.inertia for q in single)}


def halving(model: Autoencoder, num: int, side: int, num_bytes: int) -> dict[str, int]:
    """Latents (num, 4, side, side) decoded with so many bytes of a GPU, which do not hold what they take together."""
    z = torch.randn(num, 4, side, side)

    def work(part: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(pictures_of(model, part))

    work(z[:1])  # loads what it needs
    batches = HalvingBatches(num)
    with short_of_memory(num_bytes):
        found = batches.map(work, z)
    fits = HalvingBatches(max(1, batches.size // 2)).map(work, z)
    difference = int((found.int() - fits.int()).abs().max())
    return {"fitted_batch": batches.size, "of": num, "picture_difference": difference}


@contextmanager
def short_of_memory(num_bytes: int) -> Iterator[None]:
    """Lets this process have only so many bytes of a GPU more than it has. Of a CPU it has what it wants."""
    if best_device().type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + num_bytes
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
