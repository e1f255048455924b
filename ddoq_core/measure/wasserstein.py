"""How well weighted points stand for a class: distortion, Wasserstein distance, dimension.

Owns the measured side of the paper's theory (arXiv 2501.07681). Knows arrays only. POT is imported where
it is used: it loads torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import linregress

from ddoq_core.cluster import partition
from ddoq_core.cluster.checks import real_array


def distortion(z: ArrayLike, points: ArrayLike) -> float:
    """G = (1/n) Σ_i min_k |z_i − x_k|² of the class z (n, d) at the points x (K, d)."""
    centred, at = _centred(z, points)
    _, squares = partition.assign(centred, at)  # min_k |z_i − x_k|² (n,)
    return float(squares.mean(dtype=np.float64))


def w2(z: ArrayLike, points: ArrayLike, weights: ArrayLike | None = None) -> float:
    """2-Wasserstein distance between the class z (n, d), n equal masses, and the points x (K, d).

    weights  (K,) ≥ 0 of any sum, normalised here; None takes the best ones, the masses of the Voronoi cells,
             for which W2² is the distortion (Proposition 1) and no transport problem is solved.
    Solved exactly by POT's network simplex on n × K squared distances. Raises ValueError for bad weights and
    RuntimeError where the solver stops short.
    """
    if weights is None:
        return float(np.sqrt(distortion(z, points)))
    return w2_of(squared_distances(z, points), weights)


def w2_of(squares: NDArray[np.float64], weights: ArrayLike) -> float:
    """As `w2`, of squared distances (n, K): of a class that is too large to be in memory, they alone are."""
    import ot

    n, num_points = squares.shape
    p = np.asarray(weights, dtype=np.float64)  # (K,)
    if p.shape != (num_points,) or not (np.isfinite(p).all() and (p >= 0).all() and p.sum() > 0):
        raise ValueError(f"weights must be {num_points} numbers ≥ 0, not all 0, got {weights!r}")
    # C_ik = |z_i − x_k|²; W2² = min_π Σ π_ik C_ik with row sums 1/n, column sums p
    value, log = ot.emd2(np.full(n, 1 / n), p / p.sum(), squares, numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"optimal transport of {n} × {num_points} points did not converge: {log['warning']}")
    return float(np.sqrt(value))


def squared_distances(z: ArrayLike, points: ArrayLike) -> NDArray[np.float64]:
    """|z_i − x_k|², (n, K) float64."""
    return partition.squared_distances(*_centred(z, points))


def effective_dimension(num_points: ArrayLike, distances: ArrayLike) -> float:
    """d_eff = −1/slope of log W2 against log K, from W2 = O(K^(−1/d)) (Zador's rate; Corollary 1).

    num_points (m,) are the K, distances (m,) or (classes, m) the W2; classes are fitted with one slope and an
    offset each. Infinite where W2 does not fall. Raises ValueError for fewer than two different K.
    """
    log_k, log_w = np.log(np.asarray(num_points, float)), np.log(np.atleast_2d(np.asarray(distances, float)))
    if len(np.unique(log_k)) < 2 or log_w.shape[1] != len(log_k):
        raise ValueError(f"need W2 at two or more K, got {log_w.shape} distances at K = {num_points!r}")
    # log W2 = const − log K / d_eff
    slope = linregress(log_k, log_w.mean(axis=0)).slope  # equal to the fit with an offset per class
    return float(-1 / slope) if slope < 0 else float("inf")


def _centred(z: ArrayLike, points: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both sets less the mean of z, which goes before float64 is rounded: far from the origin float32 is too coarse."""
    z, points = real_array("points of the class", z), real_array("points", points)
    mean = z.mean(axis=0, dtype=np.float64).astype(z.dtype)
    return (z - mean).astype(np.float32), (points - mean).astype(np.float32)
