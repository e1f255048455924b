"""Stages train and evaluate: a student on weighted distilled images, and its accuracy on held-out real ones."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from prefect import State, task

from ddoq_core.train.protocol import Protocol
from storage.artifact import Artifact
from storage.clock import Clock
from tasks.inputs.cached import DiskCheckpoint, cached
from tasks.inputs.models import MODEL, load_classifier
from tasks.inputs.real import classify_split
from tasks.inputs.stores import distilled_set
from tasks.label import epoch_reader
from tasks.recipe.settings import ImageConfig, Weighting
from tasks.shard import indexed

VERSION = 2
METRICS = "metrics"


def identity(protocol: Protocol, architecture: str, weights: Weighting, seed: int) -> dict[str, Any]:
    """The settings of a student. How many logits are stored is the labels' own."""
    numbers = asdict(protocol)
    del numbers["label_top_k"]
    return {**numbers, "architecture": architecture, "weights": weights, "seed": seed}


@task(task_run_name="train-{artifact.label}-{artifact.digest}")
def train(artifact: Artifact, protocol: Protocol, architecture: str, weights: Weighting, seed: int) -> State | str:
    """Train one student from scratch on the distilled set."""
    if artifact.is_done():
        return cached(artifact)
    from ddoq_core.train import networks, students

    clock = Clock()
    with clock("read"):
        _, index = indexed(artifact.parents["shard"])
        pictures, classes, w = distilled_set(artifact.parents["decode"], index, weights)
        labeller = _labeller(artifact, protocol, len(pictures), len(index.classes))
        spec = networks.ClassifierSpec(architecture, len(index.classes), pictures.shape[1])
        student = networks.build_classifier(spec, seed=seed)
    with clock("compute"):
        checkpoint = DiskCheckpoint(artifact)
        losses = students.train_student(student, pictures, classes, w, protocol, labeller, seed, checkpoint)
    with artifact.writing(MODEL, clock, {"losses": losses}) as folder:
        networks.save_classifier(student, spec, folder)
    return str(artifact)


def _labeller(artifact: Artifact, protocol: Protocol, num_images: int, num_classes: int) -> Any:
    """Where a student's labels come from: the teacher, its stored labels, or None for the classes themselves."""
    from ddoq_core.train.stored_labels import StoredLabels

    if "label" in artifact.parents:
        reader = epoch_reader(artifact.parents["label"], num_images, num_classes)
        return StoredLabels(reader, num_images, protocol.batch_size, num_classes)
    return load_classifier(artifact.parents["teacher"]) if "teacher" in artifact.parents else None


@task(task_run_name="evaluate-{artifact.label}-{artifact.digest}")
def evaluate(artifact: Artifact, images: ImageConfig) -> State | str:
    """Accuracy of a student's last epoch on the held-out real images."""
    if artifact.is_done():
        return cached(artifact)
    from ddoq_core.train.accuracy import accuracy
    from ddoq_core.train.networks import load_classifier as load

    clock = Clock()
    with clock("read"):
        shard, index = indexed(artifact.parents["shard"])
        student = load(artifact.parents["train"].path / MODEL)
    with clock("compute"):
        logits, truth = classify_split(student, shard, index, "val", images)
        found = accuracy(logits, truth)
    with artifact.writing(METRICS, clock, {**asdict(found), "images": len(truth)}) as folder:
        (folder / "metrics.json").write_text(json.dumps(asdict(found)))
    return str(artifact)
