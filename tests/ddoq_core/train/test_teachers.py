"""Training on real images, and accuracy against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddoq_core.train.networks import ClassifierSpec, build_classifier
from ddoq_core.train.protocol import Augmentation, Protocol
from ddoq_core.train.teachers import accuracy, best_reordering, predict, train_teacher
from tests.ddoq_core.test_fitting import BufferCheckpoint


def colours(n: int, size: int = 8) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy pictures of two classes, bright and dark."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).normal(size=(n, size, size, 3)) * 30
    return np.clip(80 + 90 * labels[:, None, None, None] + noise, 0, 255).astype(np.uint8), labels


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


def test_the_best_reordering_by_hand() -> None:
    logits = np.eye(3, dtype=np.float32)[[1, 1, 0, 2, 2, 2]]
    labels = np.array([0, 0, 1, 2, 2, 0])
    assert accuracy(logits, labels).top1 == pytest.approx(2 / 6)
    assert best_reordering(logits, labels) == pytest.approx(5 / 6)  # 0 and 1 exchanged
    assert best_reordering(np.eye(3, dtype=np.float32)[labels], labels) == 1.0


def test_predictions_do_not_depend_on_the_batch_size() -> None:
    images, _ = colours(10)
    model = build_classifier(ClassifierSpec("convnet-2-8", 3, 8)).eval()
    np.testing.assert_allclose(predict(model, images, 3), predict(model, images, 256), atol=1e-5)
    assert predict(model, images).shape == (10, 3)


def test_a_set_one_larger_than_the_batch_trains_a_net_with_batch_norm() -> None:
    images, labels = colours(9, size=32)
    model = build_classifier(ClassifierSpec("resnet10t", 2, 32))
    protocol = Protocol(num_epochs=1, batch_size=8, weight_decay=0.0, augmentation=Augmentation())
    losses = train_teacher(model, images, labels, protocol, 0, BufferCheckpoint())
    assert all(math.isfinite(loss) for loss in losses)


def test_a_teacher_sees_no_cutmix() -> None:
    images, labels = colours(16)
    states = []
    for cutmix in (False, True):
        model = build_classifier(ClassifierSpec("convnet-2-8", 2, 8))
        augmentation = Augmentation(shift_px=1, cutmix=cutmix)
        protocol = Protocol(num_epochs=2, batch_size=8, augmentation=augmentation)
        train_teacher(model, images, labels, protocol, 0, BufferCheckpoint())
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
