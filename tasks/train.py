"""Stages train and evaluate: a student on weighted distilled images, and its accuracy on held-out real ones."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import Index
from tasks.cluster import prototypes_of
from tasks.config import ImageConfig, TrainConfig, Weighting
from tasks.decode import images_of
from tasks.models import MODEL, load_classifier
from tasks.outcome import DiskKeeper, cached
from tasks.real import read_split
from tasks.shard import indexed

VERSION = 1
METRICS = "metrics"


def distilled_set(
    decoded: Artifact, index: Index, weights: Weighting
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64]]:
    """Images (N, S, S, 3) uint8, labels (N,) and training weights (N,) of all classes, in label order."""
    from ddoq_core import class_weights

    pictures = [images_of(decoded).read_class(name)["images"] for name in index.classes]
    counts = [prototypes_of(decoded.parents["cluster"]).read_class(name)["counts"] for name in index.classes]
    labels = np.repeat(np.arange(len(pictures)), [len(p) for p in pictures])
    return np.concatenate(pictures), labels, np.concatenate([class_weights(c, weights) for c in counts])


@task(task_run_name="train-{artifact.label}-{artifact.digest}")
def train(artifact: Artifact, config: TrainConfig, architecture: str, weights: Weighting, seed: int) -> State | str:
    """Train one student from scratch on the distilled set, with the teacher's soft labels."""
    if artifact.is_done():
        return cached(artifact)
    from ddoq_core import classify, networks

    clock = Clock()
    with clock("read"):
        _, index = indexed(artifact.parents["shard"])
        pictures, _, w = distilled_set(artifact.parents["decode"], index, weights)
        labeller = load_classifier(artifact.parents["teacher"])
        spec = networks.ClassifierSpec(architecture, len(index.classes), pictures.shape[1])
        student = networks.build_classifier(spec, seed=seed)
    protocol = classify.Protocol(
        config.num_epochs,
        config.batch_size,
        config.learning_rate,
        config.weight_decay,
        config.temperature,
        **config.augmentation.model_dump(),
    )
    with clock("compute"):
        losses = classify.train_student(student, labeller, pictures, w, protocol, seed, DiskKeeper(artifact))
    with artifact.writing(MODEL, clock, {"losses": losses}) as folder:
        networks.save_classifier(student, spec, folder)
    return str(artifact)


@task(task_run_name="evaluate-{artifact.label}-{artifact.digest}")
def evaluate(artifact: Artifact, images: ImageConfig) -> State | str:
    """Accuracy of a student's last epoch on the held-out real images."""
    if artifact.is_done():
        return cached(artifact)
    from ddoq_core import classify
    from ddoq_core.networks import load_classifier as load

    clock = Clock()
    with clock("read"):
        shard, index = indexed(artifact.parents["shard"])
        held_out, truth = read_split(shard, index, "val", images)
        student = load(artifact.parents["train"].path / MODEL)
    with clock("compute"):
        found = classify.accuracy(classify.predict(student, held_out), truth)
    with artifact.writing(METRICS, clock, {**asdict(found), "images": len(truth)}) as folder:
        (folder / "metrics.json").write_text(json.dumps(asdict(found)))
    return str(artifact)
