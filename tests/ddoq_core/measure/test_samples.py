"""Measures of drawn pictures: their values where they are known, and scipy's own."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from ddoq_core.measure.samples import frechet_distance, nearest, nearest_in_blocks, precision_recall

RNG = np.random.default_rng(0)


def test_frechet_distance_of_gaussians_in_one_dimension() -> None:
    """(μ − ν)² + (σ − τ)²."""
    x = np.linspace(-1, 1, 101)[:, None]
    sigma = x.std(ddof=1)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(x, 3 * x + 2) == pytest.approx(4 + (2 * sigma) ** 2)


def test_frechet_distance_is_that_of_scipy_s_root() -> None:
    a, b = RNG.normal(size=(200, 6)) @ RNG.normal(size=(6, 6)), RNG.normal(size=(150, 6)) + 0.5
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * scipy.linalg.sqrtm(s @ t).real)
    assert frechet_distance(a, b) == pytest.approx(expected)
    fewer = frechet_distance(a[:5], b)  # covariances without full rank
    assert np.isfinite(fewer) and fewer > 0


def test_precision_and_recall_of_half_a_distribution() -> None:
    """Two clouds far apart: who draws one of them is precise and misses half, who draws elsewhere is neither."""
    real = np.concatenate([RNG.normal(size=(200, 2)), 100 + RNG.normal(size=(200, 2))])
    precision, recall = precision_recall(real, RNG.normal(size=(300, 2)))
    assert precision > 0.95 and 0.45 < recall <= 0.5
    assert precision_recall(real, RNG.normal(size=(300, 2)) - 100) == (0, 0)
    assert precision_recall(real, real) == (1, 1)


def test_precision_and_recall_on_a_line() -> None:
    """Real points reach 3, 2, 2, 3 and 9 to their third neighbours, drawn ones 3, 2, 2, 3 and 24: 30 lies in nobody's
    reach, and of the real ones 0, 1 and 2 lie in that of 30 alone or none."""
    real, drawn = (np.array(x, float)[:, None] for x in ([0, 1, 2, 3, 10], [5, 6, 7, 8, 30]))
    assert precision_recall(real, drawn) == (0.8, 0.6)


def test_a_copy_is_found() -> None:
    real = RNG.normal(size=(400, 8))
    rows, shares = nearest(np.stack([real[7] + 1e-3, np.full(8, 50.0)]), real)
    assert rows[0] == 7 and shares[0] < 0.01 and shares[1] > 10
    own = nearest(RNG.normal(size=(400, 8)), real)[1]
    assert 0.8 < np.median(own) < 1.25, "what is drawn from the same is as near as they are to each other"


def test_the_nearest_in_blocks_are_those_of_all_at_once() -> None:
    real, z = RNG.normal(size=(50, 4)), RNG.normal(size=(7, 4))
    real[40] = real[3]  # as near to every point: the first is named
    found, distances = nearest_in_blocks(z, (real[k : k + 8] for k in range(0, 50, 8)), 5)
    far = np.linalg.norm(z[:, None] - real, axis=2)
    np.testing.assert_array_equal(found, np.argsort(far, axis=1, kind="stable")[:, :5])
    np.testing.assert_allclose(distances, np.sort(far, axis=1)[:, :5])
    found, _ = nearest_in_blocks(z, [real[:2]], 5)
    assert found.shape == (7, 2), "there are no more"
