"""What a stage plans: the artifact, the task that completes it, and how its work is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from storage.artifact import Artifact

CLASSES_PER_TASK = 25  # a mapped task costs about 0.1 s in Prefect
IMAGES_PER_TASK = 16_384  # where a class costs what its images cost
TASKS_AT_LEAST = 16  # so that few classes keep all workers busy


class ClassBatch(NamedTuple):
    """Classes of one task, and what the task is called by."""

    class_names: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Work:
    """What completes an artifact: task(artifact, *arguments), or with *batch behind it for each batch of classes.

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
    batches: tuple[ClassBatch, ...] = ()
    gpu: bool = False
    reads: tuple[Artifact, ...] = ()
    shares: bool = False


def batches_of_classes(class_names: Sequence[str]) -> tuple[ClassBatch, ...]:
    """Neighbouring classes in batches, where every class costs about the same."""
    return batches_of(dict.fromkeys(class_names, 1), CLASSES_PER_TASK)


def batches_of_images(num_images: Mapping[str, int]) -> tuple[ClassBatch, ...]:
    """Neighbouring classes in batches of about as many images, where images are what takes time."""
    return batches_of(num_images, min(IMAGES_PER_TASK, sum(num_images.values()) // TASKS_AT_LEAST))


def batches_of(costs: Mapping[str, int], most: int) -> tuple[ClassBatch, ...]:
    """Neighbouring classes in batches that cost at most this much, or are a single class."""
    parts: list[list[str]] = [[]]
    cost = 0
    for name, more in costs.items():
        if parts[-1] and cost + more > most:
            parts.append([])
            cost = 0
        parts[-1].append(name)
        cost += more
    return tuple(ClassBatch(tuple(part), f"{part[0]}..{part[-1]}") for part in parts if part)
