"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ddoq_core.train.augment import Draws
from ddoq_core.train.losses import hard_label_loss, mixed_logits, soft_label_loss


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


def test_the_hard_label_loss_by_hand() -> None:
    student = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    y, w = torch.tensor([0, 1]), torch.tensor([0.5, 2.0])
    quarter, half = math.log(4), math.log(2)  # cross entropies of probabilities 1/4 and 1/2
    plain = hard_label_loss(student, y, w, Draws(), 8)
    assert plain.item() == pytest.approx((0.5 * quarter + 2.0 * half) / 2)
    draws = Draws(box=torch.tensor([0, 4, 0, 4]), partner=torch.tensor([1, 0]))  # a = 3/4
    first = 0.75 * 0.5 * quarter + 0.25 * 2.0 * math.log(4 / 3)
    second = 0.75 * 2.0 * half + 0.25 * 0.5 * half
    assert hard_label_loss(student, y, w, draws, 8).item() == pytest.approx((first + second) / 2)


def test_own_logits_are_mixed_as_the_pictures_are() -> None:
    logits = torch.tensor([[4.0, 0.0, 0.0], [0.0, 0.0, 8.0]])
    torch.testing.assert_close(mixed_logits(logits, Draws(), 8, 4.0), logits)
    draws = Draws(box=torch.tensor([0, 4, 0, 4]), partner=torch.tensor([1, 0]))  # a = 3/4
    one = [math.e / (math.e + 2), 1 / (math.e + 2), 1 / (math.e + 2)]  # softmax((4, 0, 0) / 4)
    two = [1 / (math.e**2 + 2), 1 / (math.e**2 + 2), math.e**2 / (math.e**2 + 2)]
    expected = [[0.75 * p + 0.25 * q for p, q in zip(*pair, strict=True)] for pair in ((one, two), (two, one))]
    found = (mixed_logits(logits, draws, 8, 4.0) / 4).softmax(1)
    torch.testing.assert_close(found, torch.tensor(expected))
    certain = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    loss = soft_label_loss(torch.zeros(2, 2), mixed_logits(certain, draws, 8, 1.0), torch.ones(2), 1.0)
    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-4)


def test_smoothed_classes_are_timms_as_in_halds_script() -> None:
    """timm's Mixup with CutMix alone: (1 − ε)·y + ε/C of each picture, mixed by the area."""
    from timm.data.mixup import mixup_target

    student = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    y, a = torch.tensor([0, 2, 1, 1]), 0.75
    draws = Draws(box=torch.tensor([0, 4, 0, 4]), partner=torch.arange(3, -1, -1))  # timm's partner: the batch reversed
    target = mixup_target(y, 3, lam=a, smoothing=0.8)
    expected = -(target * student.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(hard_label_loss(student, y, torch.ones(4), draws, 8, 0.8), expected)
