"""Students: what they learn from a teacher, from its stored labels and from classes, and by which weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from ddoq_core.images import to_unit
from ddoq_core.train.accuracy import accuracy, predict
from ddoq_core.train.networks import Classifier, ClassifierSpec, build_classifier
from ddoq_core.train.protocol import Augmentation, Protocol
from ddoq_core.train.stored_labels import StoredLabels
from ddoq_core.train.students import DistilledBatches, ask, label_epoch, optimizer_of, train_student
from ddoq_core.train.teachers import train_teacher
from tests.ddoq_core.test_fitting import BufferCheckpoint, Cut
from tests.ddoq_core.train.test_stored_labels import replaying
from tests.ddoq_core.train.test_teachers import colours

SPEC = ClassifierSpec("convnet-2-8", 2, 8)
ALL = Augmentation(shift_px=1, resized_crop=(0.3, 1.0), flip=True, cutmix=True)


def protocol_of(
    num_epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    augmentation: Augmentation | None = None,
    **others: Any,
) -> Protocol:
    """A protocol at temperature 1, unless another is given, and without augmentation."""
    others = {"temperature": 1.0, "augmentation": augmentation or Augmentation(), **others}
    return Protocol(
        num_epochs=num_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        **others,
    )


def labels_of(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.arange(len(images)) % 2


def student_of(
    images: NDArray[np.uint8],
    weights: NDArray[np.float64],
    protocol: Protocol,
    teacher: Classifier | StoredLabels | NDArray[np.float32] | None,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """The weights of a student trained under the protocol."""
    student = build_classifier(SPEC, seed=2)
    train_student(student, images, labels_of(images), weights, protocol, teacher, seed, BufferCheckpoint())
    return student.state_dict()


def answers_of(state: dict[str, torch.Tensor], images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits of a student with these weights."""
    student = build_classifier(SPEC)
    student.load_state_dict(state)
    return predict(student.eval(), images)


class InHalf(Classifier):
    """A teacher whose logits are rounded as stored ones are."""

    def __init__(self, teacher: Classifier) -> None:
        super().__init__(teacher.network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).half().float()


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((value - other[name]).abs().max().item() for name, value in one.items())


def test_a_teacher_learns_bright_from_dark_and_a_student_learns_it_from_the_teacher() -> None:
    images, labels = colours(64)
    protocol = protocol_of(8, 16, 1e-2, 0.01, Augmentation(shift_px=1, flip=True, cutmix=True), temperature=4.0)
    teacher = build_classifier(SPEC, seed=1)
    losses = train_teacher(teacher, images, labels, protocol, 0, BufferCheckpoint())
    assert accuracy(predict(teacher, images), labels).top1 > 0.95 and losses[-1] < losses[0] / 2
    student = build_classifier(SPEC, seed=2)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    train_student(student, images[:20], labels[:20], np.ones(20), protocol, teacher, 0, BufferCheckpoint())
    assert accuracy(predict(student, images), labels).top1 > 0.9
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


@pytest.mark.parametrize("labels", ["online", "hard"])
def test_pictures_of_weight_nothing_teach_nothing(labels: str) -> None:
    images, _ = colours(8)
    teacher = build_classifier(SPEC, seed=1).eval() if labels == "online" else None
    other = np.concatenate([images[:4], 255 - images[4:]])
    weights, protocol = np.array([1.0] * 4 + [0.0] * 4), protocol_of(3, 8, 1e-2, 0.0)
    assert apart(student_of(images, weights, protocol, teacher), student_of(other, weights, protocol, teacher)) < 1e-6


def test_weights_by_sampling_draw_and_do_not_multiply() -> None:
    images, _ = colours(8)
    weights, protocol = np.array([2.0] * 4 + [0.0] * 4), protocol_of(3, 8, 1e-2, 0.0, weights_in="sampling")
    other = np.concatenate([images[:4], 255 - images[4:]])
    assert apart(student_of(images, weights, protocol, None), student_of(other, weights, protocol, None)) == 0
    assert apart(student_of(images, weights, protocol, None), student_of(images, weights / 2, protocol, None)) == 0


def test_without_weights_all_pictures_count_alike() -> None:
    images, _ = colours(8)
    weights = np.array([2.0] * 4 + [0.0] * 4)
    ignored = student_of(images, weights, protocol_of(3, 8, 1e-2, 0.0, weights_in="none"), None)
    assert apart(ignored, student_of(images, np.ones(8), protocol_of(3, 8, 1e-2, 0.0), None)) == 0
    assert apart(ignored, student_of(images, weights, protocol_of(3, 8, 1e-2, 0.0), None)) > 1e-3


@pytest.mark.parametrize(
    "protocol",
    [
        protocol_of(8, 16, 1e-2, 0.01, Augmentation(cutmix=True)),
        protocol_of(8, 16, 0.05, 5e-4, Augmentation(cutmix=True), optimizer="sgd", schedule="steps"),
        protocol_of(8, 16, 1e-2, 0.01, schedule="half-cosine", weights_in="sampling"),
    ],
)
def test_a_student_learns_from_classes(protocol: Protocol) -> None:
    images, labels = colours(64)
    student = build_classifier(SPEC, seed=2)
    train_student(student, images[:20], labels[:20], np.ones(20), protocol, None, 0, BufferCheckpoint())
    assert accuracy(predict(student, images), labels).top1 > 0.9


@pytest.mark.parametrize("weights_in", ["loss", "sampling"])
@pytest.mark.parametrize("seed", [0, 1])
def test_stored_labels_teach_what_the_teacher_teaches(weights_in: str, seed: int) -> None:
    images, labels = colours(19)
    teacher = build_classifier(SPEC, seed=1)
    train_teacher(teacher, images, labels, protocol_of(4, 8, 1e-2, 0.0), 0, BufferCheckpoint())
    weights = np.linspace(0.5, 1.5, 19)
    protocol = protocol_of(5, 8, 1e-2, 0.01, ALL, temperature=4.0, weights_in=weights_in)
    batches = DistilledBatches(images, weights, protocol, seed, torch.device("cpu"))
    epochs = [label_epoch(teacher, batches, epoch) for epoch in range(5)]
    online = student_of(images, weights, protocol, teacher, seed)
    stored = student_of(images, weights, protocol, replaying(epochs, 19, 8, 2), seed)
    assert apart(student_of(images, weights, protocol, InHalf(teacher), seed), stored) == 0
    answers = [answers_of(state, images) for state in (online, stored)]
    np.testing.assert_allclose(*answers, atol=0.02)
    other = answers_of(student_of(images, weights, protocol, teacher, seed + 1), images)
    assert np.abs(other - answers[0]).max() > 0.1, "another seed has other batches"


def test_stored_labels_pruned_to_all_classes_are_whole() -> None:
    images, _ = colours(12)
    teacher = build_classifier(SPEC, seed=1).eval()
    protocol = protocol_of(2, 8, 1e-2, 0.01, ALL, temperature=4.0)
    batches = DistilledBatches(images, np.ones(12), protocol, 0, torch.device("cpu"))
    whole = replaying([label_epoch(teacher, batches, e) for e in range(2)], 12, 8, 2)
    pruned = replaying([label_epoch(teacher, batches, e, 2) for e in range(2)], 12, 8, 2)
    found = [student_of(images, np.ones(12), protocol, labels) for labels in (whole, pruned)]
    assert apart(*found) == 0


@pytest.mark.parametrize("labels", ["online", "stored", "hard"])
def test_a_student_cut_in_mid_epoch_equals_the_uninterrupted_one(labels: str) -> None:
    images, weights = colours(20)[0], np.linspace(0.5, 1.5, 20)
    protocol = protocol_of(3, 8, 1e-2, 0.01, ALL)
    teacher = build_classifier(SPEC, seed=1).eval()
    batches = DistilledBatches(images, weights, protocol, 3, torch.device("cpu"))
    epochs = [label_epoch(teacher, batches, epoch) for epoch in range(3)]

    def run(checkpoint: BufferCheckpoint) -> dict[str, torch.Tensor]:
        student = build_classifier(SPEC, seed=2)
        stored = replaying(epochs, 20, 8, 2)
        source = {"online": teacher, "stored": stored, "hard": None}[labels]
        try:
            train_student(student, images, labels_of(images), weights, protocol, source, 3, checkpoint)
        except Cut:
            return run(checkpoint)
        return student.state_dict()

    assert apart(run(BufferCheckpoint()), run(BufferCheckpoint((1, 5)))) == 0


def test_batch_norm_moves_in_a_step_as_in_the_two_passes_of_rdeds_script() -> None:
    images, labels = colours(8)
    student, passed_twice = (build_classifier(ClassifierSpec("resnet18+small-stem", 2, 8)) for _ in range(2))
    passed_twice.train()
    with torch.no_grad():
        for _ in range(2):
            passed_twice(to_unit(images))
    protocol = protocol_of(1, 8, 1e-3, 0.0, batch_norm_momentum=0.19)
    train_student(student, images, labels, np.ones(8), protocol, None, 0, BufferCheckpoint())
    expected, found = dict(passed_twice.named_buffers()), dict(student.named_buffers())
    running = [name for name in expected if "running" in name]
    assert len(running) == 40, "20 batch norms"
    for name in running:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_running_statistics_after_two_steps_at_a_momentum_of_0_19() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    student = Classifier(network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    white, protocol = np.full((8, 8, 8, 3), 255, np.uint8), protocol_of(2, 8, 1e-3, 0.0, batch_norm_momentum=0.19)
    train_student(student, white, labels_of(white), np.ones(8), protocol, None, 0, BufferCheckpoint())
    state = student.state_dict()
    np.testing.assert_allclose(state["network.0.running_mean"], 0.3439, rtol=1e-5)  # of pictures of 1: 1 − 0.9⁴
    np.testing.assert_allclose(state["network.0.running_var"], 0.6561, rtol=1e-5)  # of variance 0: 0.9⁴


def test_the_optimiser_is_the_protocols() -> None:
    model = build_classifier(SPEC)
    adamw = optimizer_of(model, protocol_of(1, 8, 1e-3, 0.01))
    assert type(adamw) is torch.optim.AdamW
    assert [(g["lr"], g["weight_decay"], g["betas"]) for g in adamw.param_groups] == [
        (1e-3, 0.01, (0.9, 0.999)),
        (1e-3, 0.0, (0.9, 0.999)),
    ]
    sgd = optimizer_of(model, protocol_of(1, 8, 0.01, 5e-4, optimizer="sgd", momentum=0.8))
    assert type(sgd) is torch.optim.SGD
    [group] = sgd.param_groups
    assert (group["lr"], group["weight_decay"], group["momentum"], group["nesterov"]) == (0.01, 5e-4, 0.8, False)
    assert len(group["params"]) == len(list(model.parameters()))


def test_own_logits_teach_as_a_teacher_that_answers_so() -> None:
    """Without augmentation a teacher says of each picture always the same."""
    images = colours(8)[0]
    protocol, w = protocol_of(3, 4, 1e-2, 0.0, temperature=4.0), np.linspace(0.5, 1.5, 8)
    teacher = build_classifier(SPEC, seed=7).eval()
    taught, alone = (
        student_of(images, w, protocol, teacher),
        student_of(images, w, protocol, ask(teacher, to_unit(images)).numpy()),
    )
    for name, value in taught.items():
        torch.testing.assert_close(alone[name], value, rtol=1e-3, atol=1e-4)
    mixed = protocol_of(3, 4, 1e-2, 0.0, ALL, temperature=4.0)
    assert all(value.isfinite().all() for value in student_of(images, w, mixed, predict(teacher, images)).values())


def test_in_the_hard_phase_the_classes_teach_and_the_teacher_is_not_asked() -> None:
    """HALD: soft, hard, soft; where all is hard, or none, it is the training on classes, or on the teacher's labels."""
    images, w = colours(8)[0], np.ones(8)
    teacher = build_classifier(SPEC, seed=7).eval()

    def after(judge: Classifier | None, **own: object) -> dict[str, torch.Tensor]:
        return student_of(images, w, protocol_of(6, 8, 1e-2, 0.0, temperature=4.0, **own), judge)

    soft, hard, phased = after(teacher), after(None), after(teacher, hard_phase=(1 / 6, 5 / 6))
    assert apart(after(teacher, hard_phase=(0, 1)), hard) == 0 and apart(after(teacher, hard_phase=(0, 0)), soft) == 0
    assert min(apart(phased, soft), apart(phased, hard)) > 1e-3
    until = student_of(images, w, protocol_of(1, 8, 1e-2, 0.0, temperature=4.0, schedule="half-cosine"), teacher)
    once = student_of(images, w, protocol_of(1, 8, 1e-2, 0.0, temperature=4.0, hard_phase=(0, 1)), teacher)
    assert apart(until, once) > 1e-3, "the first epoch is soft, unless the phase begins there"
