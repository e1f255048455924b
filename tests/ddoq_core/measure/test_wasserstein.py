"""The measured side of the theory: masses are the best weights, and W2 is what the transport solver says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddoq_core import quantize
from ddoq_core.measure.wasserstein import distortion, effective_dimension, squared_distances, w2, w2_of


def points(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 60), k=st.integers(1, 8))
def test_masses_are_the_best_weights(seed: int, n: int, k: int) -> None:
    z = points(n, 3, seed)
    q = quantize(z, min(k, n))
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(q.counts)))
    assert q.w2 <= w2(z, q.centroids, weights) + 1e-6
    assert w2(z, q.centroids, q.masses) == pytest.approx(q.w2, rel=1e-5, abs=1e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), k=st.integers(1, 8))
def test_w2_without_weights_is_the_root_of_the_distortion(seed: int, n: int, k: int) -> None:
    z, x = points(n, 4, seed), points(k, 4, seed + 1)
    nearest = squared_distances(z, x).min(axis=1)
    assert distortion(z, x) == pytest.approx(nearest.mean(), rel=1e-5)
    assert w2(z, x) == pytest.approx(np.sqrt(nearest.mean()), rel=1e-5)


def test_w2_on_a_line_by_hand() -> None:
    z, x = np.array([[0.0], [0.0], [0.0], [4.0]]), np.array([[0.0], [4.0]])
    assert w2(z, x, [3, 1]) == pytest.approx(0)
    assert w2(z, x, [1, 1]) == pytest.approx(2)  # a quarter of the mass moves by 4: sqrt(16/4)


def test_distances_are_those_of_differences() -> None:
    z = points(300, 70, 2)
    x = np.concatenate([z[:3], points(5, 70, 3), z[:1] + 1e-3])
    exact = np.square(z[:, None].astype(np.float64) - x).sum(axis=2)
    np.testing.assert_allclose(squared_distances(z, x), exact, rtol=1e-5, atol=1e-9)


def test_a_class_in_blocks_has_the_same_w2() -> None:
    z, x, weights = points(90, 6, 0), points(4, 6, 1), [1, 2, 3, 4]
    blocks = [squared_distances(z[k : k + 32], x) for k in range(0, 90, 32)]
    assert w2_of(np.concatenate(blocks), weights) == pytest.approx(w2(z, x, weights), rel=1e-6)


def test_distances_far_from_the_origin_are_accurate() -> None:
    z, x = points(50, 8, 0), points(3, 8, 1)
    np.testing.assert_allclose(squared_distances(z + 512, x + 512), squared_distances(z, x), rtol=1e-3)


def test_effective_dimension_recovers_the_exponent() -> None:
    k = [1, 2, 5, 10, 20]
    rate = np.power(k, -1 / 7.0)
    assert effective_dimension(k, 3 * rate) == pytest.approx(7)
    assert effective_dimension(k, [3 * rate, 0.2 * rate]) == pytest.approx(7)
    assert effective_dimension(k, np.ones(5)) == float("inf")


def test_effective_dimension_of_a_square_is_two() -> None:
    z = np.random.default_rng(3).random((4000, 2)).astype(np.float32)
    k = [4, 8, 16, 32]
    assert effective_dimension(k, [quantize(z, i, num_starts=1).w2 for i in k]) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0], [np.nan, 1.0]])
def test_bad_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be 2 numbers"):
        w2(points(5, 2, 0), points(2, 2, 1), weights)


def test_one_k_gives_no_dimension() -> None:
    with pytest.raises(ValueError, match="two or more K"):
        effective_dimension([5, 5], [1.0, 1.0])
