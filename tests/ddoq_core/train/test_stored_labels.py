"""Batches, losses and stored labels, against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ddoq_core.train.augment import Draws
from ddoq_core.train.stored_labels import (
    Batch,
    StoredLabels,
    batch_of,
    hard_label_loss,
    num_batches,
    pack_epoch,
    soft_label_loss,
)


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


def test_pictures_are_drawn_in_proportion_to_their_weights() -> None:
    w = torch.tensor([0.0, 1.0, 3.0, 0.0])
    drawn = torch.cat([batch_of(step, 4, 4, 0, w) for step in range(2000)]).bincount(minlength=4) / 8000
    assert drawn[0] == drawn[3] == 0
    assert drawn[2].item() == pytest.approx(0.75, abs=0.02)
    assert torch.equal(batch_of(3, 4, 2, 1, w), batch_of(3, 4, 2, 1, w))


def batches_of_an_epoch(num_classes: int, scale: float = 5.0) -> list[Batch]:
    """Two batches of 4 and 3 pictures, with everything drawn."""
    g = torch.Generator().manual_seed(0)
    return [
        Batch(
            torch.randperm(7, generator=g)[:n],
            Draws(
                torch.randint(-2, 3, (n, 2), generator=g),
                torch.rand(n, 4, generator=g),
                torch.rand(n, generator=g) < 0.5,
                torch.tensor([0, 3, 1, n]),
                torch.randperm(n, generator=g),
            ),
            scale * torch.randn(n, num_classes, generator=g),
        )
        for n in (4, 3)
    ]


def replay(packed: dict[str, Any], num_classes: int) -> list[Batch]:
    stored = StoredLabels(lambda epoch: packed, 7, 4, num_classes)
    assert num_batches(7, 4) == 2
    return [stored.batch(step) for step in range(2)]


def test_a_packed_epoch_is_replayed_with_logits_in_half_precision() -> None:
    batches = batches_of_an_epoch(6)
    packed = pack_epoch(batches, top_k=None, temperature=20.0)
    assert packed["logits"].nbytes == 7 * 6 * 2
    for batch, again in zip(batches, replay(packed, 6), strict=True):
        assert torch.equal(batch.rows, again.rows)
        for name in ("shift", "crop", "flip", "box", "partner"):
            assert torch.equal(getattr(batch.draws, name), getattr(again.draws, name)), name
        assert batch.logits is not None and again.logits is not None
        assert torch.equal(again.logits, batch.logits.half().float())


def test_nothing_is_packed_that_was_not_drawn() -> None:
    batches = [Batch(batch.rows, Draws(), batch.logits) for batch in batches_of_an_epoch(6)]
    packed = pack_epoch(batches, top_k=None, temperature=20.0)
    assert set(packed) == {"rows", "logits"}
    assert replay(packed, 6)[1].draws == Draws()


@pytest.mark.parametrize("k", [1, 5, 99, 100])
def test_pruned_labels_keep_the_largest_and_spread_the_mass_of_the_rest(k: int) -> None:
    batches = batches_of_an_epoch(100)
    packed = pack_epoch(batches, top_k=k, temperature=4.0)
    assert sum(packed[name].nbytes for name in ("values", "classes", "rest")) == 7 * (4 * k + 2)
    for batch, again in zip(batches, replay(packed, 100), strict=True):
        assert batch.logits is not None and again.logits is not None
        p, q = F.softmax(batch.logits / 4, 1), F.softmax(again.logits / 4, 1)
        top = batch.logits.topk(k, 1).indices
        torch.testing.assert_close(q.gather(1, top), p.gather(1, top), rtol=5e-3, atol=1e-5)
        others = torch.ones_like(q, dtype=torch.bool).scatter(1, top, False)
        for row in range(len(q)):
            mass = p[row][others[row]]
            expected = mass.mean().expand(len(mass)) if len(mass) else mass
            torch.testing.assert_close(q[row][others[row]], expected, rtol=5e-3, atol=1e-5)
