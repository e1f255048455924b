"""Losses, batches and accuracy of classifiers, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddoq_core.classify import (
    Protocol,
    accuracy,
    batch_of,
    num_batches,
    predict,
    soft_label_loss,
    train_student,
    train_teacher,
)
from ddoq_core.networks import ClassifierSpec, build_classifier
from tests.core.test_fitting import BufferKeeper, Cut


def colours(n: int, size: int = 8) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy pictures of two classes, bright and dark."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).normal(size=(n, size, size, 3)) * 30
    return np.clip(80 + 90 * labels[:, None, None, None] + noise, 0, 255).astype(np.uint8), labels


def test_the_soft_label_loss_by_hand() -> None:
    teacher = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    student = torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    w = torch.tensor([0.5, 3.0])
    p = 1 / (1 + math.exp(-1))  # softmax((2, 0) / 2)
    first = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    q = 1 / (1 + math.exp(2))  # softmax((0, 4) / 2)
    second = 0.5 * math.log(0.5 / q) + 0.5 * math.log(0.5 / (1 - q))
    expected = (0.5 * first + 3 * second) / 2
    assert soft_label_loss(student, teacher, w, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_the_soft_label_loss_is_zero_for_the_teacher_itself_and_follows_the_weights() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    other = logits.flip(1)
    w = torch.rand(5, generator=torch.Generator().manual_seed(1))
    assert soft_label_loss(logits, logits, w, 20.0).item() == pytest.approx(0, abs=1e-7)
    single = [soft_label_loss(other[i : i + 1], logits[i : i + 1], torch.ones(1), 3.0) for i in range(5)]
    expected = sum(a * b for a, b in zip(w, single, strict=True)) / 5
    torch.testing.assert_close(soft_label_loss(other, logits, w, 3.0), expected)


@pytest.mark.parametrize(("n", "size"), [(10, 4), (8, 4), (3, 64), (1, 1), (7, 1), (65, 64), (129, 64), (64, 64)])
def test_each_epoch_sees_each_picture_once(n: int, size: int) -> None:
    per_epoch = num_batches(n, size)
    epochs = []
    for epoch in range(3):
        batches = [batch_of(epoch * per_epoch + k, n, size, seed=5) for k in range(per_epoch)]
        assert all(0 < len(b) <= size + 1 for b in batches)
        epochs.append(torch.cat(batches))
        assert torch.equal(epochs[-1].sort().values, torch.arange(n))
    if n > 3:
        assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize("n", range(2, 40))
def test_no_batch_holds_a_lone_picture(n: int) -> None:
    per_epoch = num_batches(n, 4)
    assert min(len(batch_of(k, n, 4, seed=0)) for k in range(per_epoch)) > 1


def test_batches_follow_the_seed_and_the_step_alone() -> None:
    assert torch.equal(batch_of(7, 20, 4, seed=1), batch_of(7, 20, 4, seed=1))
    assert not torch.equal(batch_of(7, 20, 4, seed=1), batch_of(7, 20, 4, seed=2))


def test_accuracy_by_hand() -> None:
    logits = np.array(
        [[9, 1, 2, 3, 4, 5], [1, 9, 2, 3, 4, 5], [1, 9, 2, 3, 4, 5], [5, 9, 2, 3, 4, 1], [0, 9, 8, 7, 6, 5]], np.float32
    )
    found = accuracy(logits, np.array([0, 1, 5, 5, 0]))
    assert found.top1 == pytest.approx(2 / 5)
    assert found.top5 == pytest.approx(3 / 5)  # the last two labels are ranked sixth
    assert found.per_class == [0.5, 1.0, 0.0]  # classes 0, 1 and 5; the others have no images


def test_accuracy_with_fewer_than_five_classes_has_a_top5_of_one() -> None:
    found = accuracy(np.eye(3, dtype=np.float32)[[1, 2, 0]], np.array([0, 1, 2]))
    assert (found.top1, found.top5) == (0.0, 1.0)


def test_predictions_do_not_depend_on_the_batch_size() -> None:
    images, _ = colours(10)
    model = build_classifier(ClassifierSpec("convnet-2-8", 3, 8)).eval()
    np.testing.assert_allclose(predict(model, images, 3), predict(model, images, 256), atol=1e-5)
    assert predict(model, images).shape == (10, 3)


def test_a_teacher_learns_bright_from_dark_and_a_student_learns_it_from_the_teacher() -> None:
    images, labels = colours(64)
    spec = ClassifierSpec("convnet-2-8", 2, 8)
    protocol = Protocol(8, 16, 1e-2, 0.01, temperature=4.0, shift_px=1, flip=True, cutmix=True)
    teacher = build_classifier(spec, seed=1)
    losses = train_teacher(teacher, images, labels, protocol, 0, BufferKeeper())
    assert accuracy(predict(teacher, images), labels).top1 > 0.95 and losses[-1] < losses[0] / 2
    student = build_classifier(spec, seed=2)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    train_student(student, teacher, images[:20], np.ones(20), protocol, 0, BufferKeeper())
    assert accuracy(predict(student, images), labels).top1 > 0.9
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_pictures_of_weight_nothing_teach_nothing() -> None:
    images, _ = colours(8)
    spec = ClassifierSpec("convnet-1-8", 2, 8)
    teacher = build_classifier(spec, seed=1).eval()
    trained = []
    for pixels in (images, np.concatenate([images[:4], 255 - images[4:]])):
        student = build_classifier(spec, seed=2)
        weights = np.array([1.0] * 4 + [0.0] * 4)
        train_student(student, teacher, pixels, weights, Protocol(3, 8, 1e-2, 0.0), 0, BufferKeeper())
        trained.append(student.state_dict())
    assert all(torch.allclose(v, trained[1][k], atol=1e-6) for k, v in trained[0].items())


def test_a_student_cut_in_mid_epoch_equals_the_uninterrupted_one() -> None:
    images, _ = colours(20)
    spec = ClassifierSpec("convnet-2-8", 2, 8)
    teacher = build_classifier(spec, seed=1).eval()
    protocol = Protocol(3, 8, 1e-2, 0.01, resized_crop=(0.3, 1.0), flip=True, cutmix=True)

    def run(keeper: BufferKeeper) -> dict[str, torch.Tensor]:
        student = build_classifier(spec, seed=2)
        try:
            train_student(student, teacher, images, np.linspace(0.5, 1.5, 20), protocol, 3, keeper)
        except Cut:
            return run(keeper)
        return student.state_dict()

    whole, cut = run(BufferKeeper()), run(BufferKeeper((1, 5)))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_a_set_one_larger_than_the_batch_trains_a_net_with_batch_norm() -> None:
    images, labels = colours(9, size=32)
    model = build_classifier(ClassifierSpec("resnet10t", 2, 32))
    losses = train_teacher(model, images, labels, Protocol(1, 8, 1e-3, 0.0), 0, BufferKeeper())
    assert all(math.isfinite(loss) for loss in losses)
