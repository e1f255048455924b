"""Training on real images."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from ddoq_core.train.networks import ClassifierSpec, build_classifier
from ddoq_core.train.protocol import Augmentation, Protocol
from ddoq_core.train.teachers import train_teacher
from tests.ddoq_core.test_fitting import BufferCheckpoint


def colours(n: int, size: int = 8) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy pictures of two classes, bright and dark."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).normal(size=(n, size, size, 3)) * 30
    return np.clip(80 + 90 * labels[:, None, None, None] + noise, 0, 255).astype(np.uint8), labels


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
