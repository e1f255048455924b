"""Stage evaluate: the accuracy of a student's last epoch on held-out real images."""

from __future__ import annotations

from dataclasses import asdict

from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import write_json
from tasks.inputs.cached import cached
from tasks.inputs.models import load_classifier
from tasks.inputs.plan import Work
from tasks.inputs.real import classify_split
from tasks.inputs.stores import indexed
from tasks.recipe.protocols import resolve
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import ImageConfig

VERSION = 2
METRICS = "metrics"


def plan(recipe: Recipe, shard: Artifact, student: Artifact) -> Work:
    """The accuracy of a student, shown the images as its protocol says."""
    images, (_, index) = recipe.images.for_training, indexed(shard)
    center_crop = resolve(recipe.train, recipe.ipc, len(index.classes)).center_crop
    parents = {"shard": shard, "train": student}
    settings = {"images": images.model_dump(), **({"center_crop": center_crop} if center_crop else {})}
    artifact = Artifact(shard.root, "evaluate", VERSION, settings, parents, label=student.label)
    return Work(artifact, evaluate, (images, center_crop), gpu=True)


@task(task_run_name="evaluate-{artifact.label}-{artifact.digest}")
def evaluate(artifact: Artifact, images: ImageConfig, center_crop: float | None) -> State | str:
    """Accuracy of a student's last epoch on the held-out real images."""
    if artifact.is_done():
        return cached(artifact)
    from ddoq_core.train.accuracy import accuracy

    clock = Clock()
    with clock("read"):
        shard, index = indexed(artifact.parents["shard"])
        student = load_classifier(artifact.parents["train"])
    with clock("compute"):
        logits, truth = classify_split(student, shard, index, "val", images, center_crop)
        found = accuracy(logits, truth)
    with artifact.writing(METRICS, clock, {**asdict(found), "images": len(truth)}) as folder:
        write_json(folder / "metrics.json", asdict(found))
    return str(artifact)
