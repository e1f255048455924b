"""Many classes at once give what one at a time gives."""

from __future__ import annotations

import dataclasses
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddoq_core import Quantization, quantize
from ddoq_core.cluster import exact
from ddoq_core.cluster.batched import quantize_batch
from ddoq_core.cluster.batched_gram import BatchCells, seed_cells
from ddoq_core.cluster.gram import Cells, nearest_seed, seed_points, uniform_numbers


class Memory(TorchDispatchMode):
    """Counts the bytes that live tensors hold, and has no more than `capacity` of them, as a small GPU would."""

    def __init__(self, capacity: float = float("inf"), error: type[RuntimeError] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.error, self.capacity, self.live, self.peak, self.refusals = error, capacity, dict[int, int](), 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and (held := tensor.untyped_storage())._cdata not in self.live:
                self.live[held._cdata] = held.nbytes()
                weakref.finalize(held, self.live.pop, held._cdata)
        self.peak = max(self.peak, sum(self.live.values()))
        if sum(self.live.values()) > self.capacity:
            self.refusals += 1
            raise self.error(f"CUBLAS_STATUS_ALLOC_FAILED: no more than {self.capacity} bytes")
        return out


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def classes(seed: int = 0) -> list[np.ndarray]:
    """Classes of several sizes in 40 dimensions, one with duplicates."""
    rng = np.random.default_rng(seed)
    sets = [rng.standard_normal((n, 40)).astype(np.float32) + 5 for n in (120, 90, 133, 60)]
    sets[3][30:] = sets[3][:30]
    return sets


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_is_as_good_as_single_classes(device: str) -> None:
    found = quantize_batch(classes(), 12, seeds=[1, 2, 3, 4], device=device)
    for z, q, seed in zip(classes(), found, [1, 2, 3, 4], strict=True):
        alone = quantize(z, 12, seed=seed)
        assert q.inertia == pytest.approx(alone.inertia, rel=1e-2)
        assert q.counts.sum() == len(z)
        assert q.counts.min() >= 1
        assert (np.diff(q.counts) <= 0).all()
        for k in range(12):
            np.testing.assert_allclose(q.centroids[k], z[q.assignment == k].mean(axis=0), atol=1e-4)
        assert (q.assignment[q.medoids] == np.arange(12)).all()
        assert q.w2 == pytest.approx(np.sqrt(np.square(z - q.centroids[q.assignment]).sum() / len(z)), rel=1e-5)
        cells = Cells(exact.gram_matrix(z - z.mean(axis=0)), q.assignment.astype(np.intp), 12)
        assert cells.single_moves() == 0


@pytest.mark.parametrize("device", DEVICES)
def test_neither_company_nor_memory_changes_a_class(device: str) -> None:
    together = quantize_batch(classes(), 7, seeds=[0] * 4, device=device)
    small = quantize_batch(classes(), 7, seeds=[0] * 4, device=device, max_bytes=1)
    for a, b in zip(together, small, strict=True):
        assert a.inertia == pytest.approx(b.inertia, rel=1e-5)
        np.testing.assert_array_equal(a.assignment, b.assignment)


@pytest.mark.parametrize("num_starts", [1, 10])
@pytest.mark.parametrize("num_points", [1, 3, 12, 40])
@pytest.mark.parametrize("max_bytes", [400_000, 3_000_000, 1 << 30])
def test_the_memory_bound_is_kept(num_points: int, num_starts: int, max_bytes: int) -> None:
    with Memory() as memory:
        quantize_batch(classes(), num_points, seeds=[0] * 4, num_starts=num_starts, device="cpu", max_bytes=max_bytes)
    assert 0 < memory.peak <= max_bytes


@pytest.mark.parametrize(("capacity", "same"), [(1_200_000, True), (300_000, True), (50_000, False)])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_device_out_of_memory_is_given_smaller_groups(capacity: int, same: bool, error: type[RuntimeError]) -> None:
    roomy = quantize_batch(classes(), 12, seeds=[0] * 4, device="cpu")
    with Memory(capacity, error) as memory:
        tight = quantize_batch(classes(), 12, seeds=[0] * 4, device="cpu")
    assert memory.refusals > 0
    expected = roomy if same else [quantize(z, 12) for z in classes()]  # not even one start fits: the plain path
    for a, b in zip(expected, tight, strict=True):
        np.testing.assert_array_equal(a.assignment, b.assignment)


def test_results_have_the_form_of_the_plain_path() -> None:
    mixed = [classes()[0], np.eye(12, dtype=np.float32), classes()[1] + np.float64(1e8), classes()[2][:, :20]]
    for z, q in zip(mixed, quantize_batch(mixed, 12, seeds=range(4), device="cpu"), strict=True):
        alone = quantize(z, 12)
        for field in dataclasses.fields(Quantization):
            one, other = getattr(q, field.name), getattr(alone, field.name)
            assert type(one) is type(other)
            if isinstance(one, np.ndarray):
                assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert q.method == "exact"


def test_seeding_and_lloyd_are_those_of_the_plain_path() -> None:
    z = classes()[0].astype(np.float64)
    gram = exact.gram_matrix((z - z.mean(axis=0)).astype(np.float32))
    seeds = np.random.SeedSequence(5).spawn(3)
    uniform = torch.from_numpy(uniform_numbers(seeds, 9)[None])
    batch = torch.from_numpy(gram)[None]
    real = torch.ones(1, len(z), dtype=torch.bool)
    cells = BatchCells(batch, real, seed_cells(batch, real, uniform), 9)
    singles = [Cells(gram, nearest_seed(gram, s), 9) for s in seed_points(gram, 9, seeds)]
    for _ in range(4):
        for r, single in enumerate(singles):
            np.testing.assert_array_equal(cells.assignment[0, r], single.assignment)
            assert cells.inertia()[0, r].item() == pytest.approx(single.inertia)
            single.lloyd_step()
        cells.lloyd_step()


def test_disjoint_moves_only_lower_the_inertia() -> None:
    z = classes()[2]
    gram = torch.from_numpy(exact.gram_matrix(z - z.mean(axis=0)))[None]
    start = torch.arange(len(z)).expand(1, 1, -1) % 10
    cells = BatchCells(gram, torch.ones(1, len(z), dtype=torch.bool), start.clone(), 10)
    inertia = [cells.inertia().item()]
    while cells.disjoint_moves():
        inertia.append(cells.inertia().item())
    assert len(inertia) > 5
    assert (np.diff(inertia) < 0).all()
    drifted = cells.inertia().item()
    cells.refresh()
    assert drifted == pytest.approx(cells.inertia().item(), rel=1e-9)


def test_tied_moves_of_equal_points_do_not_collide() -> None:
    z = np.repeat(np.random.default_rng(3).standard_normal((10, 4)), 6, axis=0).astype(np.float32)
    [q] = quantize_batch([z], 10, seeds=[0])
    assert q.inertia == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(q.counts, np.full(10, 6))


def test_edges_are_those_of_the_plain_path() -> None:
    constant, few = np.full((9, 3), 2.0, np.float32), np.eye(4, 3, dtype=np.float32)
    first, second = quantize_batch([constant, few], 4, seeds=[0, 0])
    assert first.inertia == 0
    assert first.counts.min() >= 1
    assert second.inertia == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="5 points asked for, but the class has 4"):
        quantize_batch([few], 5, seeds=[0])
    with pytest.raises(ValueError, match="2 classes need as many seeds, got 1"):
        quantize_batch([constant, few], 2, seeds=[0])
