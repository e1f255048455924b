"""Stage train: a student on weighted distilled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from prefect import State, task

from ddoq_core.train.architectures import initialisation, may_have_batch_norm
from ddoq_core.train.protocol import Protocol
from storage.artifact import Artifact
from storage.clock import Clock
from tasks.inputs.cached import DiskCheckpoint, made_once
from tasks.inputs.given import MODEL
from tasks.inputs.labels import step_reader
from tasks.inputs.models import load_classifier
from tasks.inputs.plan import Work
from tasks.inputs.stores import distilled_set, indexed, own_labels
from tasks.recipe.protocols import augmentation_identity, protocol_of
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import Weighting

VERSION = 2


def plan(
    recipe: Recipe, method: str, architecture: str, seed: int, shard: Artifact, labelled: Mapping[str, Artifact]
) -> Work:
    """A student of a method. Its pictures are labelled: "decode" comes with "teacher", with "label", or alone."""
    _, index = indexed(shard)
    protocol = protocol_of(recipe, method, len(index.classes))
    weights = recipe.effective(method, index.counts("train").values()).weights
    settings = identity(protocol, architecture, weights, seed)
    label = f"{method}-{architecture}-{seed}"
    artifact = Artifact(shard.root, "train", VERSION, settings, {"shard": shard, **labelled}, label=label)
    return Work(artifact, train, (protocol, architecture, weights, seed), gpu=True)


def identity(protocol: Protocol, architecture: str, weights: Weighting, seed: int) -> dict[str, Any]:
    """The settings of a student. How many logits are stored is the labels' own, how it is evaluated no part of it."""
    numbers = {**asdict(protocol), "augmentation": augmentation_identity(protocol.augmentation)}
    del numbers["label_top_k"], numbers["center_crop"]
    for name in ("hard_phase", "label_smoothing"):  # once were not: as by default, they are in no digest
        if not numbers[name]:
            del numbers[name]
    if protocol.batch_norm_momentum is None or not may_have_batch_norm(architecture):
        del numbers["batch_norm_momentum"]
    return {**numbers, "architecture": architecture, **initialisation(architecture), "weights": weights, "seed": seed}


@task(task_run_name="train-{artifact.label}-{artifact.digest}")
@made_once
def train(artifact: Artifact, protocol: Protocol, architecture: str, weights: Weighting, seed: int) -> State | str:
    """Train one student from scratch on the distilled set."""
    from ddoq_core.train import networks, students

    clock = Clock()
    with clock("read"):
        distilled = distilled_set(artifact.parents["decode"], weights)
        num_classes = len(distilled.classes)
        labeller = _labeller(artifact, protocol, len(distilled.images), num_classes)
        spec = networks.ClassifierSpec(architecture, num_classes, distilled.images.shape[1])
        student = networks.build_classifier(spec, seed=seed)
    with clock("compute"):
        checkpoint = DiskCheckpoint(artifact)
        losses = students.train_student(
            student, distilled.images, distilled.labels, distilled.weights, protocol, labeller, seed, checkpoint
        )
    with artifact.writing(MODEL, clock, {"losses": losses}) as folder:
        networks.save_classifier(student, spec, folder)
    return str(artifact)


def _labeller(artifact: Artifact, protocol: Protocol, num_images: int, num_classes: int) -> Any:
    """Where a student's labels come from: the teacher, its stored labels, the set's own logits, or None for the classes
    themselves, which they are too where a set has no others of its own."""
    from ddoq_core.train.stored_labels import StoredLabels

    if protocol.labels == "own":
        return own_labels(artifact.parents["decode"])
    if "label" in artifact.parents:
        read_step = step_reader(artifact.parents["label"], num_images, num_classes)
        return StoredLabels(read_step, num_images, protocol.batch_size, num_classes)
    return load_classifier(artifact.parents["teacher"]) if "teacher" in artifact.parents else None
