"""What a stage plans: the artifact, the task that completes it, and how its work is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from storage.artifact import Artifact
from storage.packs import PACKS_AT_LEAST as TASKS_AT_LEAST
from storage.packs import Packs, neighbours

CLASSES_PER_TASK = 25  # a mapped task costs about 0.1 s in Prefect
IMAGES_PER_TASK = 16_384  # where a class costs what its images cost


class Batch(NamedTuple):
    """Packs of classes of one task, and what the task is called by: its first and last class."""

    packs: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Work:
    """What completes an artifact: task(artifact, *arguments), or with *batch behind it for each batch of packs.

    units   of the artifact, 1 for one that is made as a whole
    gpu     the task is for a worker with a GPU, where there are such
    reads   artifacts that the task waits for beside its parents; they are made of what those are made of, so that they
            are no part of what the artifact is
    shares  the task takes `share`, by which other workers do parts of its work
    """

    artifact: Artifact
    task: Any
    arguments: tuple[Any, ...] = ()
    units: int = 1
    batches: tuple[Batch, ...] = ()
    gpu: bool = False
    reads: tuple[Artifact, ...] = ()
    shares: bool = False


def batches_of_classes(packs: Packs) -> tuple[Batch, ...]:
    """Neighbouring packs in batches, where every class costs about the same."""
    return batches_of(packs, {pack: len(own) for pack, own in packs.classes.items()}, CLASSES_PER_TASK)


def batches_of_images(packs: Packs, num_images: Mapping[str, int]) -> tuple[Batch, ...]:
    """Neighbouring packs in batches of about as many images, where images are what takes time."""
    most = min(IMAGES_PER_TASK, sum(num_images.values()) // TASKS_AT_LEAST)
    return batches_of(packs, packs.totals(num_images), most)


def batches_of(packs: Packs, costs: Mapping[str, int], most: int) -> tuple[Batch, ...]:
    """Neighbouring packs in batches that cost at most this much, or are a single pack."""
    parts = neighbours(costs, most)
    return tuple(Batch(part, f"{packs.classes[part[0]][0]}..{packs.classes[part[-1]][-1]}") for part in parts)
