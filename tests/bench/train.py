"""Benchmark of the training loop: `python -m tests.bench.train` prints a table and, last, one line of JSON.

Images per second of a student's training as the stage does it (drawing, gathering, augmentation, labels, loss, step)
against the same model's forward, backward and step on one fixed batch. The labels are the classes or stored ones, read
from a zarr store; with a teacher in the loop, the peer runs the teacher on its batch too. Rounds of both alternate in
one process, after one round each that is not counted. `loop_over_model` is the smallest median over the cases without
a teacher.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ddoq_core.devices import mixed_precision
from ddoq_core.train.losses import soft_label_loss
from ddoq_core.train.networks import Classifier, ClassifierSpec, build_classifier
from ddoq_core.train.protocol import Augmentation, Protocol
from ddoq_core.train.stored_labels import StoredLabels
from ddoq_core.train.students import DistilledBatches, ask, label_epoch, optimizer_of, train_student
from storage.artifact import Artifact
from storage.clock import Clock
from tasks.inputs.labels import label_blocks, step_reader, write_labels

CROP_FLIP_CUTMIX = Augmentation(resized_crop=(0.08, 1.0), flip=True, cutmix=True)
NUM_CLASSES = 10
console = Console(width=150)


@dataclass(frozen=True)
class Case:
    """A student, the distilled set it sees, and how many epochs a round has."""

    name: str
    architecture: str
    size_px: int
    num_images: int
    batch_size: int
    num_epochs: int
    augmentation: Augmentation

    @property
    def protocol(self) -> Protocol:
        return Protocol(num_epochs=self.num_epochs, batch_size=self.batch_size, augmentation=self.augmentation)

    @property
    def seen(self) -> int:
        """Images that a round trains on."""
        return self.num_images * self.num_epochs


CPU = (
    Case("digits", "convnet-3-32", 16, 100, 100, 50, Augmentation(shift_px=2)),
    Case("32 px, all augmentations", "convnet-3-128", 32, 100, 50, 4, CROP_FLIP_CUTMIX),
    Case("32 px, batch norm", "resnet18", 32, 100, 50, 4, CROP_FLIP_CUTMIX),
    Case("224 px", "resnet18", 224, 8, 8, 2, CROP_FLIP_CUTMIX),
)
GPU = (
    Case("32 px, all augmentations", "convnet-3-128", 32, 1000, 100, 50, CROP_FLIP_CUTMIX),
    Case("224 px", "resnet18", 224, 1000, 250, 15, CROP_FLIP_CUTMIX),
    Case("224 px, FKD's batch", "resnet18", 224, 10240, 1024, 2, CROP_FLIP_CUTMIX),
)


class Silent:
    """A checkpoint that saves nothing."""

    def load(self) -> None:
        return None

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        pass

    def report(self, done: int, total: int, note: str) -> None:
        pass


class Race:
    """The loop and its peer for one case."""

    def __init__(self, case: Case, root: Path) -> None:
        self.case, n, size = case, case.num_images, case.size_px
        self.images = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        self.labels, self.weights = np.arange(n) % NUM_CLASSES, np.ones(n)
        self.teacher = self.build(1).eval()
        device = self.teacher.mean.device
        self.stored = self.store_labels(Artifact(root, "label", 1, asdict(case.protocol)), device)
        self.fixed = torch.rand(case.batch_size, 3, size, size, device=device)
        self.target = torch.randn(case.batch_size, NUM_CLASSES, device=device)

    def build(self, seed: int) -> Classifier:
        return build_classifier(ClassifierSpec(self.case.architecture, NUM_CLASSES, self.case.size_px), seed=seed)

    def store_labels(self, artifact: Artifact, device: torch.device) -> Artifact:
        """Labels of every epoch on disk, as the stage label leaves them."""
        batches = DistilledBatches(self.images, self.weights, self.case.protocol, 0, device)
        for unit, block in label_blocks(self.case.num_epochs, len(self.images), NUM_CLASSES).items():
            epochs = [label_epoch(self.teacher, batches, epoch) for epoch in block]
            arrays = {name: np.stack([epoch[name] for epoch in epochs]) for name in epochs[0]}
            files = write_labels(artifact, unit, arrays, self.case.batch_size)
            artifact.commit(unit, files, inputs="", clock=Clock())
        return artifact

    def loop(self, labels: str) -> float:
        """Images per second of a student's training."""
        read_step = step_reader(self.stored, len(self.images), NUM_CLASSES)
        stored = StoredLabels(read_step, len(self.images), self.case.batch_size, NUM_CLASSES)
        teacher = {"hard": None, "stored": stored, "online": self.teacher}[labels]
        data, model = (self.images, self.labels, self.weights), self.build(0)
        seconds = _seconds(lambda: train_student(model, *data, self.case.protocol, teacher, 0, Silent()))
        return self.case.seen / seconds

    def peer(self, labels: str) -> float:
        """Images per second of forward, backward and step on one batch."""
        model, case = self.build(0).train(), self.case
        optimizer = optimizer_of(model, case.protocol)
        w = torch.ones(case.batch_size, device=self.fixed.device)

        def steps() -> None:
            for _ in range(case.seen // case.batch_size):
                target = ask(self.teacher, self.fixed) if labels == "online" else self.target
                with mixed_precision(self.fixed.device, strides=True):
                    answer = model(self.fixed)
                optimizer.zero_grad(set_to_none=True)
                soft_label_loss(answer.float(), target, w, 20.0).backward()  # type: ignore[no-untyped-call]
                optimizer.step()

        return case.seen / _seconds(steps)


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def race(case: Case, labels: str, num_rounds: int, root: Path) -> dict[str, float]:
    """Median images per second of both, and median, smallest and largest of the rounds' ratios."""
    both = Race(case, root)
    rounds = [(both.loop(labels), both.peer(labels)) for _ in range(num_rounds + 1)][1:]
    ratios = [loop / peer for loop, peer in rounds]
    loops, peers = zip(*rounds, strict=True)
    return {
        "loop": median(loops),
        "peer": median(peers),
        "ratio": median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = "GPU" if torch.cuda.is_available() else f"CPU, {args.threads} thread(s)"
    table = Table("case", "student", "labels", "loop, images/s", "peer, images/s", "loop / peer", "range", title=device)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in GPU if torch.cuda.is_available() else CPU:
            for labels in ("hard", "stored", "online"):
                row = race(case, labels, args.rounds, Path(folder))
                found[f"{case.name}, {labels}"] = row
                numbers = (f"{row['loop']:.0f}", f"{row['peer']:.0f}", f"{row['ratio']:.3f}")
                spread = f"{row['least']:.3f} to {row['most']:.3f}"
                table.add_row(case.name, case.architecture, labels, *numbers, spread)
    console.print(table)
    alone = min(row["ratio"] for name, row in found.items() if not name.endswith("online"))
    beside = min(row["ratio"] for name, row in found.items() if name.endswith("online"))
    result = {"loop_over_model": alone, "loop_over_model_with_teacher": beside}
    print(json.dumps(result | {"device": device, "rounds": args.rounds, "torch": torch.__version__, "cases": found}))


if __name__ == "__main__":
    main()
