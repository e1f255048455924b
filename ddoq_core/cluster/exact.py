"""The exact quantiser: many starts of k-means, each ended by Hartigan–Wong moves; the lowest inertia wins.

Chooses between the Gram matrix (n small: all of k-means costs little more than Z Zᵀ) and scikit-learn's
Lloyd.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from ddoq_core.cluster import partition
from ddoq_core.cluster.gram import Cells, nearest_seed, seed_points
from ddoq_core.cluster.partition import Index, Points, Weights

MAX_GRAM_POINTS = 8192  # 256 MiB of float32
DOUBLE_FLOPS = 1 << 30  # Gram matrices cheaper than this are made in float64
LLOYD_STEPS = 3  # before single moves take over: from there they go further at the same cost
MAX_SWEEPS = 300


def best_partition(
    x: Points, num_points: int, num_starts: int, seed: np.random.SeedSequence, weights: Weights | None = None
) -> Index:
    """The cell (n,) of each centred point x (n, d) in the best of `num_starts` partitions, no cell empty.

    The best has the least Σ_i w_i |x_i − c_{k(i)}|²; the weights (n,) are positive, 1 each if None.
    """
    find = _by_gram if fits_gram(*x.shape) else _by_library
    return find(x, num_points, num_starts, seed, weights)


def fits_gram(n: int, d: int) -> bool:
    """Whether the Gram matrix of n points is small, and not much larger than the points."""
    return n <= MAX_GRAM_POINTS and n <= max(2048, 16 * d)


def gram_matrix(x: Points) -> np.ndarray:
    """x xᵀ (n, n): float64 where that is cheap, else float32."""
    n, d = x.shape
    wide = x.astype(np.float64) if n * n * d <= DOUBLE_FLOPS else x
    return wide @ wide.T  # G


def polish(cells: Cells) -> None:
    """A few Lloyd steps, then sweeps of single moves until none helps (or `MAX_SWEEPS`)."""
    for _ in range(LLOYD_STEPS):
        if not cells.lloyd_step():
            break
    for _ in range(MAX_SWEEPS):
        if not cells.single_moves():
            break


def settle(cells: Cells) -> None:
    """Lloyd to rest: at once where single moves have ended, else where only gains under the noise remain."""
    for _ in range(MAX_SWEEPS):
        if not cells.lloyd_step():
            break


def _by_gram(
    x: Points, num_points: int, num_starts: int, seed: np.random.SeedSequence, weights: Weights | None
) -> Index:
    gram = gram_matrix(x)
    best: Cells | None = None
    for seeds in seed_points(gram, num_points, seed.spawn(num_starts), weights):
        cells = Cells(gram, nearest_seed(gram, seeds), num_points, weights)
        polish(cells)
        if best is None or cells.inertia < best.inertia:  # the first among equals, so the order of starts decides
            best = cells
    assert best is not None
    settle(best)
    return best.assignment


def _by_library(
    x: Points, num_points: int, num_starts: int, seed: np.random.SeedSequence, weights: Weights | None
) -> Index:
    """Full Lloyd on the data by scikit-learn."""
    state = int(seed.generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than K: repaired below
        fit = KMeans(num_points, n_init=num_starts, random_state=state, tol=1e-6).fit(x, sample_weight=weights)
    assignment, _ = partition.assign_all(x, fit.cluster_centers_)
    return assignment
