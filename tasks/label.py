"""Stage label: the teacher's labels for every epoch of a student's training, kept (FKD, arXiv 2112.01528)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from prefect import State, task

from ddoq_core.train.protocol import Protocol
from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import sha256_of
from tasks.inputs.cached import made_once
from tasks.inputs.labels import label_blocks, write_labels
from tasks.inputs.models import load_classifier
from tasks.inputs.plan import Work
from tasks.inputs.stores import distilled_set, indexed
from tasks.recipe.protocols import augmentation_identity, protocol_of
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import Weighting

VERSION = 1


def plan(recipe: Recipe, method: str, seed: int, shard: Artifact, labelled: Mapping[str, Artifact]) -> Work:
    """The labels of a method's pictures for one student's training. Reads "decode" and "teacher"."""
    _, index = indexed(shard)
    own, num_classes = recipe.effective(method, index.counts("train").values()), len(index.classes)
    protocol = protocol_of(recipe, method, num_classes)
    parents = {"shard": shard, **labelled}
    settings = identity(protocol, own.weights, seed)
    artifact = Artifact(shard.root, "label", VERSION, settings, parents, label=f"{method}-{seed}")
    units = len(label_blocks(protocol.num_epochs, recipe.num_pictures(method) * num_classes, num_classes))
    return Work(artifact, label, (protocol, own.weights, seed), units=units, gpu=True)


def identity(protocol: Protocol, weights: Weighting, seed: int) -> dict[str, Any]:
    """The settings that decide which batches are labelled and what is kept of their labels."""
    return {
        "num_epochs": protocol.num_epochs,
        "batch_size": protocol.batch_size,
        "augmentation": augmentation_identity(protocol.augmentation),
        "label_top_k": protocol.label_top_k,
        "temperature": protocol.temperature if protocol.label_top_k else None,
        "weights": weights if protocol.weights_in == "sampling" else None,
        "seed": seed,
    }


@task(task_run_name="label-{artifact.label}-{artifact.digest}")
@made_once
def label(artifact: Artifact, protocol: Protocol, weights: Weighting, seed: int) -> State | str:
    """Label each block of epochs that the store does not hold yet."""
    from ddoq_core.train import students

    clock = Clock()
    with clock("read"):
        distilled = distilled_set(artifact.parents["decode"], weights)
        teacher = load_classifier(artifact.parents["teacher"])
        batches = students.DistilledBatches(distilled.images, distilled.weights, protocol, seed, teacher.mean.device)
    inputs = sha256_of(artifact.inputs())
    blocks = label_blocks(protocol.num_epochs, len(distilled.images), len(distilled.classes))
    for unit in artifact.missing(dict.fromkeys(blocks, inputs)):
        with clock("compute"):
            labelled = [students.label_epoch(teacher, batches, e, protocol.label_top_k) for e in blocks[unit]]
            arrays = {name: np.stack([epoch[name] for epoch in labelled]) for name in labelled[0]}
        with clock("write"):
            files = write_labels(artifact, unit, arrays, protocol.batch_size)
        facts = {"bytes": {name: array.nbytes for name, array in arrays.items()}}
        artifact.commit(unit, files, inputs=inputs, clock=clock, facts=facts)
        clock = Clock()
    stored = [stamp.num_bytes for mark in artifact.marks().values() for stamp in mark.files.values()]
    artifact.finish(blocks, facts={"bytes_on_disk": sum(stored)})
    return str(artifact)
