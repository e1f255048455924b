"""Labels that were stored are replayed as they were, up to what is given up for their size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ddoq_core.train.augment import Draws
from ddoq_core.train.batches import Batch, batch_slice
from ddoq_core.train.protocol import num_batches
from ddoq_core.train.stored_labels import StoredLabels, pack_epoch


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


def replaying(epochs: list[dict[str, Any]], num_images: int, batch_size: int, num_classes: int) -> StoredLabels:
    """Of packed epochs in memory."""

    def read_step(epoch: int, k: int) -> dict[str, Any]:
        own = batch_slice(k, num_images, batch_size)
        return {name: array[k if name == "box" else own] for name, array in epochs[epoch].items()}

    return StoredLabels(read_step, num_images, batch_size, num_classes)


def replay(packed: dict[str, Any], num_classes: int) -> list[Batch]:
    stored = replaying([packed], 7, 4, num_classes)
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
