"""Stage teacher: the network that labels the distilled images, measured on held-out real ones before use."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prefect import State, task

from ddoq_core.train.architectures import initialisation, together
from ddoq_core.train.protocol import Protocol
from storage.artifact import Artifact
from storage.clock import Clock
from tasks.inputs.cached import DiskCheckpoint, made_once
from tasks.inputs.given import MODEL, WeightsError, expect_weights, facts_of, stamp_weights
from tasks.inputs.models import load_classifier
from tasks.inputs.plan import Work
from tasks.inputs.real import classify_split
from tasks.inputs.stores import indexed, view_of
from tasks.recipe.protocols import augmentation_identity
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import ImageConfig, TeacherConfig

VERSION = 2


def plan(recipe: Recipe, shard: Artifact, training: Artifact | None, member: TeacherConfig | None = None) -> Work:
    """The teacher of a recipe, or a member of it, trained on the view of the training images unless its weights are
    given."""
    config, images = member or recipe.teacher, recipe.images.for_training
    settings = {"teacher": identity(config), "images": images.model_dump()}
    artifact = Artifact(shard.root, "teacher", VERSION, settings, {"shard": shard})
    expect_weights(artifact, checkpoint_of(config))
    return Work(artifact, teacher, (config, images, training), reads=(training,) if training else (), gpu=True)


def plan_ensemble(recipe: Recipe, shard: Artifact, members: Sequence[Artifact]) -> Work:
    """The teacher whose logits are the mean of its members'."""
    images = recipe.images.for_training
    parents = {"shard": shard, **{f"member-{k}": member for k, member in enumerate(members)}}
    settings = {"teacher": {"architecture": together(recipe.teacher.architectures)}, "images": images.model_dump()}
    artifact = Artifact(shard.root, "teacher", VERSION, settings, parents)
    return Work(artifact, ensemble, (recipe.teacher, images), gpu=True)


def identity(config: TeacherConfig) -> dict[str, Any]:
    """The settings that matter: of weights that are given, not how others would be trained."""
    if config.weights:
        view = {"view": "its own"}  # once it was that of the training
        names = {"architecture", "weights", "min_gain", *(["others"] if config.others else [])}
        return {**config.model_dump(include=names), **view}
    return {
        **config.model_dump(exclude={"others"} if config.start else {"start", "others"}),
        **initialisation(config.architecture),
        "augmentation": augmentation_identity(config.augmentation),
    }


def checkpoint_of(config: TeacherConfig) -> str | None:
    """The file of weights, or of those that training starts from, if they come from one."""
    given = config.weights or config.start
    return None if given == "pretrained" else given


@task(task_run_name="teacher-{artifact.digest}")
@made_once
def teacher(artifact: Artifact, config: TeacherConfig, images: ImageConfig, training: Artifact | None) -> State | str:
    """Train the teacher on the real images, or load it, and refuse one that knows too little."""
    from ddoq_core.train import networks
    from ddoq_core.train.accuracy import accuracy, best_reordering
    from ddoq_core.train.pretrained import (
        center_crop_of,
        load_checkpoint,
        load_pretrained,
        load_start,
        unlike_published,
    )
    from ddoq_core.train.teachers import train_teacher

    clock = Clock()
    losses: list[float] = []
    checkpoint, given = checkpoint_of(config), {}
    with clock("read"):
        shard, index = indexed(artifact.parents["shard"])
        spec = networks.ClassifierSpec(together(config.architectures), len(index.classes), images.size_px)
        if checkpoint:
            given = facts_of(stamp_weights(checkpoint))
        if config.start:
            model = load_start(spec, checkpoint, seed=config.seed)
        elif config.weights is None:
            model = networks.build_classifier(spec, seed=config.seed)
        elif checkpoint is None:
            model = load_pretrained(spec, index.classes)
        else:
            model = load_checkpoint(spec, checkpoint, index.classes)
    if training:
        assert config.num_epochs is not None, "the recipe's minutes have decided"
        with clock("read"):
            real, labels = view_of(training), index.labels(index.rows("train"))
        protocol = Protocol(
            num_epochs=config.num_epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            augmentation=config.augmentation,
        )
        with clock("compute"):
            losses = train_teacher(model, real, labels, protocol, config.seed, DiskCheckpoint(artifact))
    with clock("compute"):
        center_crop = center_crop_of(config.architecture) if config.weights else None
        logits, truth = classify_split(model.eval(), shard, index, "val", images, center_crop)
        found = accuracy(logits, truth)
    check_teacher(config, found.top1, best_reordering(logits, truth), len(index.classes), len(truth))
    if odd := config.weights and unlike_published(config.architecture, found.top1, index.classes, len(truth)):
        logging.getLogger(__name__).warning(odd)
        given = {**given, "warning": odd}
    with artifact.writing(MODEL, clock, {**asdict(found), "losses": losses, **given}) as folder:
        networks.save_classifier(model, spec, folder)
    return str(artifact)


@task(task_run_name="ensemble-{artifact.digest}")
@made_once
def ensemble(artifact: Artifact, config: TeacherConfig, images: ImageConfig) -> State | str:
    """Join finished teachers to one, and measure it. Of given weights each member is shown what it was measured on."""
    from ddoq_core.train import networks
    from ddoq_core.train.accuracy import accuracy, best_reordering
    from ddoq_core.train.pretrained import center_crop_of

    clock = Clock()
    with clock("read"):
        shard, index = indexed(artifact.parents["shard"])
        members = [load_classifier(parent) for name, parent in artifact.parents.items() if name != "shard"]
        spec = networks.ClassifierSpec(together(config.architectures), len(index.classes), images.size_px)
        model = networks.join(members)
    with clock("compute"):
        center_crop = center_crop_of(config.architecture) if config.weights else None
        logits, truth = classify_split(model.eval(), shard, index, "val", images, center_crop)
        found = accuracy(logits, truth)
    check_teacher(config, found.top1, best_reordering(logits, truth), len(index.classes), len(truth))
    with artifact.writing(MODEL, clock, asdict(found)) as folder:
        networks.save_classifier(model, spec, folder)
    return str(artifact)


def check_teacher(config: TeacherConfig, top1: float, reordered: float, num_classes: int, num_images: int) -> None:
    """Raise WeightsError for a teacher near chance, or one that would be much better with its classes in another order.

    reordered  its accuracy with its classes in the best order for the held-out images; 1/√n of it may be luck
    """
    if config.min_gain == 0:
        return
    who = f"teacher {config.architecture} ({config.weights or 'trained here'}) has top-1 {top1:.1%} on {num_images}"
    if reordered > top1 + 0.1 + num_images**-0.5:
        raise WeightsError(
            f"{who} held-out images, but {reordered:.1%} with its classes in another order: they are not in the order "
            "of the sorted class names; reorder its last layer"
        )
    chance = 1 / num_classes
    if top1 < min(config.min_gain * chance, (1 + chance) / 2):
        raise WeightsError(f"{who} held-out images, chance is {chance:.1%}: train it longer or give other weights")
