"""Stage teacher: the network that labels the distilled images, measured on held-out real ones before use."""

from __future__ import annotations

from dataclasses import asdict

from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from tasks.config import ImageConfig, TeacherConfig
from tasks.models import MODEL, WeightsError
from tasks.outcome import DiskKeeper, cached
from tasks.real import read_split
from tasks.shard import indexed

VERSION = 1


@task(task_run_name="teacher-{artifact.digest}")
def teacher(artifact: Artifact, config: TeacherConfig, images: ImageConfig) -> State | str:
    """Train the teacher on the real images, or load it, and refuse one that knows too little."""
    if artifact.is_done():
        return cached(artifact)
    from ddoq_core import classify, networks

    clock = Clock()
    losses: list[float] = []
    with clock("read"):
        shard, index = indexed(artifact.parents["shard"])
        held_out, truth = read_split(shard, index, "val", images)
        num_classes = len(index.classes)
        spec = networks.ClassifierSpec(config.architecture, num_classes, images.size_px)
        model = networks.build_classifier(spec, seed=config.seed, pretrained=config.weights == "pretrained")
    if config.weights is None:
        with clock("read"):
            real, labels = read_split(shard, index, "train", images)
        protocol = classify.Protocol(
            config.num_epochs,
            config.batch_size,
            config.learning_rate,
            config.weight_decay,
            **config.augmentation.model_dump(),
        )
        with clock("compute"):
            losses = classify.train_teacher(model, real, labels, protocol, config.seed, DiskKeeper(artifact))
    elif config.weights != "pretrained":
        networks.load_checkpoint(model, config.weights)
    with clock("compute"):
        found = classify.accuracy(classify.predict(model.eval(), held_out), truth)
    if found.top1 < config.min_gain / num_classes:
        raise WeightsError(
            f"teacher {config.architecture} ({config.weights or 'trained here'}) has top-1 {found.top1:.1%} on "
            f"{len(truth)} held-out images, chance is {1 / num_classes:.1%}: check its training or its class order"
        )
    with artifact.writing(MODEL, clock, {**asdict(found), "losses": losses}) as folder:
        networks.save_classifier(model, spec, folder)
    return str(artifact)
