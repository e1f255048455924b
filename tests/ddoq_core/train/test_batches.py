"""Which pictures a step shows: every one once an epoch, or drawn by weight."""

from __future__ import annotations

import pytest
import torch

from ddoq_core.train.batches import batch_of
from ddoq_core.train.protocol import num_batches


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


def test_pictures_are_drawn_in_proportion_to_their_weights() -> None:
    w = torch.tensor([0.0, 1.0, 3.0, 0.0])
    drawn = torch.cat([batch_of(step, 4, 4, 0, w) for step in range(2000)]).bincount(minlength=4) / 8000
    assert drawn[0] == drawn[3] == 0
    assert drawn[2].item() == pytest.approx(0.75, abs=0.02)
    assert torch.equal(batch_of(3, 4, 2, 1, w), batch_of(3, 4, 2, 1, w))
