"""Stage evaluate: the accuracy of a student's last epoch on real images that nothing was trained on."""

from __future__ import annotations

from dataclasses import asdict

from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import write_json
from tasks.inputs.cached import made_once
from tasks.inputs.models import load_classifier
from tasks.inputs.plan import Work
from tasks.inputs.stores import indexed, view_of

VERSION = 2
METRICS = "metrics"


def plan(shard: Artifact, student: Artifact, held_out: Artifact) -> Work:
    """The accuracy of a student, shown the view of the held-out images, which is made of the same."""
    split, center_crop = held_out.config["split"], held_out.config["center_crop"]
    told = {} if split == "val" else {"split": split}  # in no digest of before there was another
    settings = {"images": held_out.config["images"], **({"center_crop": center_crop} if center_crop else {}), **told}
    parents = {"shard": shard, "train": student}
    artifact = Artifact(shard.root, "evaluate", VERSION, settings, parents, label=student.label)
    return Work(artifact, evaluate, (held_out,), reads=(held_out,), gpu=True)


@task(task_run_name="evaluate-{artifact.label}-{artifact.digest}")
@made_once
def evaluate(artifact: Artifact, held_out: Artifact) -> State | str:
    """Accuracy of a student's last epoch on the held-out real images."""
    from ddoq_core.train.accuracy import accuracy, predict

    clock = Clock()
    with clock("read"):
        _, index = indexed(artifact.parents["shard"])
        student, pictures = load_classifier(artifact.parents["train"]), view_of(held_out)
        truth = index.labels(index.rows(held_out.config["split"]))
    with clock("compute"):
        found = accuracy(predict(student, pictures), truth)
    with artifact.writing(METRICS, clock, {**asdict(found), "images": len(truth)}) as folder:
        write_json(folder / "metrics.json", asdict(found))
    return str(artifact)
