"""Benchmark of memory: `python -m tests.bench.budget` prints sums for ImageNet-1K and, last, one line of JSON.

Every number is a quotient of peaks of resident memory, each of a fresh process that runs a stage's own task on a CPU;
what the libraries take is subtracted by a process that does the same with little data. A batch's floats are more than
32 MiB, as at 224 px: smaller blocks glibc keeps for later, and the peak would show its habits.

train_over_set       stage train on 10,000 pictures, less the same on 800, over the bytes (uint8) of what it has more
evaluate_over_batch  stage evaluate on eight batches, over the same on one; both less the same on two images
teacher_growth       stage teacher on 8,192 images, over the same on 2,048; both less the same on eight
measure_growth       stage measure on four blocks of latents a class, over the same on one; both less its libraries
cluster_growth       stage cluster on 81,920 latents of one class, in blocks, over the same on 20,480; both less on 64
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from ddoq_core.train.networks import ClassifierSpec, build_classifier, save_classifier
from ddoq_core.train.protocol import Augmentation, Protocol
from flows.catalogue import load_recipe
from storage.artifact import Artifact
from storage.clock import Clock
from tasks import evaluate, shard, teacher, train, view
from tasks.inputs.given import MODEL
from tasks.inputs.plan import Work
from tasks.inputs.real import BATCH_IMAGES
from tasks.inputs.stores import indexed
from tasks.recipe.recipe import Recipe
from tests.bench.budget_cluster import cluster_growth
from tests.bench.budget_measure import measure_growth
from tests.bench.peak import peak_bytes
from tests.tasks.conftest import decode_of, shard_of

NETWORK, BATCH, NUM_CLASSES, SIZE_PX = "convnet-1-4", BATCH_IMAGES, 100, 128
GIB = 2**30
console = Console(width=150)


def train_over_set(root: Path) -> float:
    """See above."""
    names = [f"c{c:02d}" for c in range(NUM_CLASSES)]
    peaks, sizes = [], []
    for ipc in (8, 100):
        listed = shard_of(root / str(ipc), names, 1)
        peaks.append(peak_bytes(_train, decode_of(listed, names, ipc, SIZE_PX).path))
        sizes.append(ipc * NUM_CLASSES * 3 * SIZE_PX**2)
    return (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])


def _train(pictures: Path) -> None:
    decode = Artifact.open(pictures)
    protocol = Protocol(labels="hard", num_epochs=1, batch_size=BATCH, augmentation=Augmentation(flip=True))
    parents = {"shard": decode.ancestor("shard"), "decode": decode}
    student = Artifact(decode.root, "train", train.VERSION, train.identity(protocol, NETWORK, "sqrt", 0), parents)
    train.train.fn(student, protocol, NETWORK, "sqrt", 0)


def evaluate_over_batch(root: Path) -> float:
    """See above."""
    least, batch, batches = (_evaluated(root / str(n), n) for n in (2, BATCH, 8 * BATCH))
    return (batches - least) / (batch - least)


def _evaluated(root: Path, num_images: int) -> int:
    _, listed, held_out = _viewed(root, "val", train=2, val=num_images)
    spec, student = ClassifierSpec(NETWORK, 2, SIZE_PX), Artifact(listed.root, "train", 1, {}, {"shard": listed})
    with student.writing(MODEL, Clock()) as folder:
        save_classifier(build_classifier(spec), spec, folder)
    return peak_bytes(_evaluate, listed, student, held_out)


def _evaluate(listed: Artifact, student: Artifact, held_out: Artifact) -> None:
    _complete(evaluate.plan(listed, student, held_out))


def teacher_growth(root: Path) -> float:
    """See above."""
    least, once, four_times = (_taught(root / str(n), n) for n in (8, 2048, 8192))
    return (four_times - least) / (once - least)


def _taught(root: Path, num_images: int) -> int:
    return peak_bytes(_teach, *_viewed(root, "train", train=num_images, val=64))


def _teach(recipe: Recipe, listed: Artifact, training: Artifact) -> None:
    _complete(teacher.plan(recipe, listed, training))


PARTS: dict[str, Callable[[Path], float]] = {
    "train_over_set": train_over_set,
    "evaluate_over_batch": evaluate_over_batch,
    "teacher_growth": teacher_growth,
    "measure_growth": measure_growth,
    "cluster_growth": cluster_growth,
}


def _viewed(root: Path, split: str, **counts: int) -> tuple[Recipe, Artifact, Artifact]:
    """A recipe on so many images of dark and bright noise by split, the shard artifact, and the view of a split."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        for k in range(count):
            folder = root / "images" / name / "ab"[k % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 200, (SIZE_PX, SIZE_PX, 3), np.uint8) + np.uint8(55 * (k % 2))
            Image.fromarray(pixels).save(folder / f"{k}.jpg")
    settings = {
        "data.path": str(root / "images"),
        "images.size_px": SIZE_PX,
        "teacher": {"architecture": NETWORK, "num_epochs": 1, "batch_size": BATCH, "min_gain": 0},
    }
    recipe = load_recipe("folder").with_changes(settings)
    _complete(work := shard.plan(recipe, root / "runs"))
    listed, _ = indexed(work.artifact)
    _complete(work := view.plan(recipe, listed, split))
    return recipe, listed, work.artifact


def _complete(work: Work) -> None:
    work.task.fn(work.artifact, *work.arguments)


def show_imagenet(found: dict[str, float]) -> None:
    """What ImageNet-1K takes at 224 px, by what its arrays take and the ratios that were measured."""
    side, num_classes, epochs, held_out, training = 224, 1000, 300, 50_000, 1_281_167
    picture = 3 * side**2
    table = Table("images per class", "distilled set", "training's memory", "labels of an epoch", "of 300 epochs")
    for ipc in (10, 50, 200):
        size, labels = ipc * num_classes * picture, 2 * ipc * num_classes**2
        row = (size, size * found.get("train_over_set", 1), labels, epochs * labels)
        table.add_row(str(ipc), *(f"{num_bytes / GIB:.2f} GiB" for num_bytes in row))
    console.print("ImageNet-1K at 224 px, soft labels in half precision:", table)
    console.print(
        f"on disk: view of the held-out images {held_out * picture / GIB:.1f} GiB, of the training images (if the "
        f"teacher is trained here) {training * picture / GIB:.0f} GiB; in memory of either: a batch"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    found = {}
    for name in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = round(PARTS[name](Path(folder)), 3)
        console.print(f"{name} {found[name]}")
    show_imagenet(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
