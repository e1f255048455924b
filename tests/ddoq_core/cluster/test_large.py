"""The quantiser of classes larger than memory: as good as in memory, and never whole in it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from ddoq_core import quantize
from ddoq_core.cluster import large
from ddoq_core.cluster.blocks import Ahead, Blocks, Passes
from ddoq_core.cluster.checks import METHODS, WHOLE, Method
from ddoq_core.cluster.large import quantize_blocks
from ddoq_core.measure.wasserstein import w2

IN_BLOCKS = tuple(method for method in METHODS if method not in WHOLE)


def blocks_of(z: np.ndarray, size: int) -> Blocks:
    return Blocks(lambda k: z[k * size : (k + 1) * size], -(-len(z) // size))


def mixture(n: int, d: int, components: int) -> np.ndarray:
    """Points (n, d) float16 around as many centres, some of which overlap."""
    rng = np.random.default_rng(0)
    centres = 2 * rng.standard_normal((components, d))
    return (5 + centres[rng.integers(components, size=n)] + rng.standard_normal((n, d))).astype(np.float16)


def spectrum(n: int, d: int) -> np.ndarray:
    """Points (n, d) float16 without clusters, of directions that count as those of latents do."""
    rng = np.random.default_rng(1)
    return (rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5).astype(np.float16)


@pytest.mark.parametrize("z", [mixture(9000, 16, 30), spectrum(9000, 32)], ids=["mixture", "spectrum"])
@pytest.mark.parametrize("num_points", [10, 30])
def test_exact_is_as_good_as_in_memory(z: np.ndarray, num_points: int) -> None:
    assert quantize_blocks(blocks_of(z, 512), num_points).inertia <= 1.005 * quantize(z, num_points).inertia


@pytest.mark.parametrize("method", ["stream", "stream-d4m", "clvq"])
def test_a_stream_is_as_good_as_in_memory(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "AHEAD_BYTES", 4 * 32 * 333)
    z = spectrum(3000, 32)
    z = z[np.argsort(z[:, 0])]  # in the order of the blocks alone it would see one side of the class, then the other
    ours, theirs = (
        np.mean([found(seed) for seed in range(5)])
        for found in (
            lambda seed: quantize_blocks(blocks_of(z, 200), 20, method=method, seed=seed).inertia,
            lambda seed: quantize(z, 20, method=method, seed=seed).inertia,
        )
    )
    assert ours == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize("method", IN_BLOCKS)
@pytest.mark.parametrize("size", [64, 300])
def test_every_method_gives_full_cells_and_true_measures_whatever_the_blocks(method: Method, size: int) -> None:
    z = mixture(700, 8, 5)
    q, whole = (
        quantize_blocks(blocks_of(z, size), 9, method=method),
        quantize_blocks(blocks_of(z, 700), 9, method=method),
    )
    assert q.counts.min() >= 1 and (np.bincount(q.assignment, minlength=9) == q.counts).all()
    assert (np.diff(q.counts) <= 0).all() and (q.assignment[q.medoids] == np.arange(9)).all()
    gap = z.astype(np.float64) - q.centroids[q.assignment]
    assert q.inertia == pytest.approx(np.square(gap).sum(), rel=1e-4)
    assert q.w2 == pytest.approx(w2(z, q.centroids, q.masses), rel=1e-4)
    np.testing.assert_allclose(q.centroids, whole.centroids, atol=1e-4)
    np.testing.assert_array_equal(q.medoids, whole.medoids)


@pytest.mark.parametrize("method", IN_BLOCKS)
@pytest.mark.parametrize("distinct", [1, 3, 12])
def test_equal_points_still_fill_all_cells(method: Method, distinct: int) -> None:
    z = mixture(distinct, 4, 3)[np.arange(120) % distinct]
    q = quantize_blocks(blocks_of(z, 32), 5, method=method)
    assert q.counts.min() >= 1 and q.counts.sum() == 120 and len(set(q.medoids)) == 5
    if method != "random" and distinct <= 5:
        assert q.inertia == pytest.approx(0, abs=1e-6)


def test_the_seed_decides() -> None:
    z = spectrum(2000, 8)
    first, again, other = (quantize_blocks(blocks_of(z, 300), 10, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.centroids, again.centroids)
    assert not np.array_equal(first.centroids, other.centroids)


def test_points_are_had_in_an_order_over_the_whole_class() -> None:
    z = mixture(90, 3, 4)
    order = np.random.default_rng(0).permutation(90)
    ahead = Ahead(Passes(blocks_of(z, 20)), order, 32)
    found = [ahead[order[start : start + 10]] for start in range(0, 80, 10)] + [ahead[order[80]][None]]
    x = z.astype(np.float32) - z.mean(axis=0, dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate(found), x[order[:81]])


@pytest.mark.parametrize("method", ["exact", "stream", "random"])
def test_memory_does_not_grow_with_the_class(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "AHEAD_BYTES", 1 << 19)
    monkeypatch.setattr(large, "LEAST_CANDIDATES", 64)
    monkeypatch.setattr(large, "MAX_STEPS", 2)

    def peak(num_blocks: int) -> int:
        def read(k: int) -> np.ndarray:
            return np.random.default_rng(k).standard_normal((64, 1024), np.float32).astype(np.float16)

        tracemalloc.start()
        quantize_blocks(Blocks(read, num_blocks), 32, method=method, num_starts=1 if method == "exact" else None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(2)  # what is loaded at the first use
    assert peak(64) < 1.2 * peak(16)


def test_what_cannot_be_is_refused() -> None:
    z = spectrum(100, 4)
    with pytest.raises(ValueError, match="101 points asked for, but the class has 100"):
        quantize_blocks(blocks_of(z, 30), 101)
    with pytest.raises(ValueError, match="balanced needs the whole class in memory: take method exact"):
        quantize_blocks(blocks_of(z, 30), 5, method="balanced")
    z[77, 2] = np.nan
    with pytest.raises(ValueError, match="of 100 points some are not finite"):
        quantize_blocks(blocks_of(z, 30), 5)
