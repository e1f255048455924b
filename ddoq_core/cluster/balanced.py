"""Balanced k-means: cells of equal mass, the honest baseline for a uniformly weighted Wasserstein barycenter.

Alternates an exact optimal-transport assignment with cell means; both lower the inertia, so it ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddoq_core.cluster import partition
from ddoq_core.cluster.partition import Index, Points

MAX_STEPS = 100
MAX_PIVOTS = 10_000_000


def balance(x: Points, assignment: Index, num_points: int) -> Index:
    """Balanced cells (n,) of the centred points x (n, d), from the cells of another partition.

    Counts differ by one at most. Each step solves min_π Σ π_ik |x_i − c_k|² over equal marginals exactly,
    then moves c to the means. Source: Cuturi & Doucet, "Fast computation of Wasserstein barycenters" (2014),
    with free support and uniform weights.
    """
    for _ in range(MAX_STEPS):
        centroids = partition.cell_means(x, assignment, num_points)
        balanced = equal_cells(_costs(x, centroids))
        if (balanced == assignment).all():
            break
        assignment = balanced
    return assignment


def equal_cells(cost: NDArray[np.float64]) -> Index:
    """The cheapest assignment (n,) to K cells of ⌊n/K⌋ or ⌈n/K⌉ points each, for cost (n, K).

    A transport problem of whole masses has a whole optimal plan. Each cell has ⌊n/K⌋ places and an extra one;
    extra places that stay empty go to a dummy point, which is kept off the others by its cost.
    """
    import ot

    n, num_points = cost.shape  # C_ik
    least, extra = divmod(n, num_points)
    supply, places = np.ones(n), np.full(num_points, float(least))  # marginals a (n,), b (K,) in whole points
    if extra:
        dear = np.full(num_points, 2 * cost.max() + 1)
        cost = np.block([[cost, cost], [dear, np.zeros(num_points)]])  # (n + 1, 2K)
        supply = np.append(supply, num_points - extra)
        places = np.append(places, np.ones(num_points))
    plan = ot.emd(supply, places, cost, numItermax=MAX_PIVOTS)
    filled = plan[:n].reshape(n, -1, num_points).sum(axis=1)  # (n, K)
    return np.asarray(filled.argmax(axis=1))


def _costs(x: Points, centroids: Points) -> NDArray[np.float64]:
    """|x_i − c_k|² less the part that is the same for every cell: 0 for the nearest, (n, K)."""
    cost = np.square(centroids).sum(axis=1) - 2 * (x @ centroids.T)  # |c|² − 2 x·c (n, K)
    return np.asarray(cost - cost.min(axis=1, keepdims=True), dtype=np.float64)
