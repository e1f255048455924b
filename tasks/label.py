"""Stage label: the teacher's labels for every epoch of a student's training, kept (FKD, arXiv 2112.01528)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import State, task

from ddoq_core.train.protocol import Protocol
from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import sha256_of
from storage.zarr_store import ClassStore
from tasks.inputs.cached import cached
from tasks.inputs.models import load_classifier
from tasks.inputs.stores import distilled_set
from tasks.recipe.settings import Weighting
from tasks.shard import indexed

VERSION = 1
STORE = "labels.zarr"
BLOCK_EPOCHS, BLOCK_BYTES = 50, 128 << 20  # a unit holds as many epochs as fit, at least one


def identity(protocol: Protocol, weights: Weighting, seed: int) -> dict[str, Any]:
    """The settings that decide which batches are labelled and what is kept of their labels."""
    return {
        "num_epochs": protocol.num_epochs,
        "batch_size": protocol.batch_size,
        "augmentation": asdict(protocol.augmentation),
        "label_top_k": protocol.label_top_k,
        "temperature": protocol.temperature if protocol.label_top_k else None,
        "weights": weights if protocol.weights_in == "sampling" else None,
        "seed": seed,
    }


@task(task_run_name="label-{artifact.label}-{artifact.digest}")
def label(artifact: Artifact, protocol: Protocol, weights: Weighting, seed: int) -> State | str:
    """Label each block of epochs that the store does not hold yet."""
    if artifact.is_done():
        return cached(artifact)
    from ddoq_core.train import students

    clock = Clock()
    with clock("read"):
        _, index = indexed(artifact.parents["shard"])
        pictures, _, w = distilled_set(artifact.parents["decode"], index, weights)
        teacher = load_classifier(artifact.parents["teacher"])
        batches = students.DistilledBatches(pictures, w, protocol, seed, teacher.mean.device)
    inputs = sha256_of(artifact.inputs())
    blocks = {block_name(block): block for block in blocks_of(protocol.num_epochs, len(pictures), len(index.classes))}
    for unit in artifact.missing(dict.fromkeys(blocks, inputs)):
        with clock("compute"):
            labelled = [students.label_epoch(teacher, batches, e, protocol.label_top_k) for e in blocks[unit]]
            arrays = {name: np.stack([epoch[name] for epoch in labelled]) for name in labelled[0]}
        with clock("write"):
            files = ClassStore(artifact.path / STORE).write_class(unit, arrays)
        facts = {"bytes": {name: array.nbytes for name, array in arrays.items()}}
        artifact.commit(unit, files, inputs=inputs, clock=clock, facts=facts)
        clock = Clock()
    stored = [stamp.num_bytes for mark in artifact.marks().values() for stamp in mark.files.values()]
    artifact.finish(blocks, facts={"bytes_on_disk": sum(stored)})
    return str(artifact)


def blocks_of(num_epochs: int, num_images: int, num_classes: int) -> list[range]:
    """The epochs of each unit."""
    size = max(1, min(BLOCK_EPOCHS, BLOCK_BYTES // (2 * num_images * num_classes)))
    return [range(first, min(first + size, num_epochs)) for first in range(0, num_epochs, size)]


def block_name(block: range) -> str:
    """The unit of these epochs, e.g. "epochs-0000-0024"."""
    return f"epochs-{block[0]:04d}-{block[-1]:04d}"


def epoch_reader(artifact: Artifact, num_images: int, num_classes: int) -> Callable[[int], dict[str, NDArray[Any]]]:
    """Reads an epoch's arrays, as ddoq_core.train.stored_labels.pack_epoch made them. Holds one block in memory."""
    blocks = blocks_of(artifact.config["num_epochs"], num_images, num_classes)
    read_block = lru_cache(maxsize=1)(ClassStore(artifact.path / STORE).read_class)

    def read_epoch(epoch: int) -> dict[str, NDArray[Any]]:
        block = blocks[epoch // len(blocks[0])]
        return {name: array[epoch - block[0]] for name, array in read_block(block_name(block)).items()}

    return read_epoch
