"""Partitions of points among centroids: assignment, repair of empty cells, cell means, distortion.

Owns what every quantiser shares once it has centroids or cells; knows nothing of how they were found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
Weights = NDArray[np.float64]
Index = NDArray[np.intp]

BLOCK_BYTES = 4 << 20  # points worked on at once: what a processor's cache holds
LARGEST = 1e15  # of a coordinate, so that sums of squares stay in float32; its inverse so that they do not vanish


@dataclass(frozen=True)
class Centred:
    """Points less their mean, in an order of their own: x = z[order] − offset."""

    x: Points  # (n, d)
    weights: Weights | None  # (n,), in the order of x; None where all are 1
    offset: NDArray[np.floating]  # (d,), in the dtype of the data
    order: Index  # (n,)


def centre(z: NDArray[np.floating], weights: Weights | None = None) -> Centred:
    """The points z (n, d), float32 or float64, less their mean, in canonical order.

    |x|² is then as small as it can be, so float32 loses least of |x|² − 2x·c + |c|². The mean of float64 points goes
    before they are rounded, so their distances survive at any offset; those that float32 holds give what it gives.
    Raises ValueError where squares of distances would leave float32.
    """
    with np.errstate(over="ignore"):
        narrow = z.astype(np.float32, copy=False)
    wide = z if (narrow != z).any() else narrow
    order = canonical_order(wide)
    x, w = wide[order], None if weights is None else weights[order]
    mean = x.mean(axis=0, dtype=np.float64) if w is None else w @ x.astype(np.float64) / w.sum()  # (d,)
    mean = mean.astype(x.dtype)
    with np.errstate(over="ignore"):
        x = (x - mean).astype(np.float32, copy=False)
    spread = float(np.abs(x).max())
    if spread and not 1 / LARGEST < spread < LARGEST:
        raise ValueError(
            f"points lie up to {spread:.1e} from their mean, whose square float32 cannot hold: rescale them"
        )
    return Centred(x, w, mean.astype(z.dtype), order)


def canonical_order(z: NDArray[np.floating]) -> Index:
    """An order of the rows of z (n, d) that depends on their values only."""
    rows = np.ascontiguousarray(z)
    return np.argsort(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel(), kind="stable")


def assign(x: Points, centroids: Points) -> tuple[Index, Points]:
    """Nearest centroid (n,) of each point and the squared distance to it (n,), by blocks of points.

    argmin_k |x − c_k|² = argmin_k ½|c_k|² − x·c_k: |x|² is the same for all k and would only cost digits.
    """
    nearest = np.empty(len(x), np.intp)
    half = 0.5 * np.einsum("kd,kd->k", centroids, centroids, dtype=np.float64).astype(np.float32)  # (K,)
    for block in _blocks(len(x), 4 * max(len(centroids), x.shape[1])):
        nearest[block] = (half - x[block] @ centroids.T).argmin(axis=1)  # of (block, K)
    return nearest, own_squares(x, nearest, centroids)


def squared_distances(x: Points, centroids: Points) -> NDArray[np.float64]:
    """|x_i − c_k|² = |x_i|² − 2 x_i·c_k + |c_k|², (n, K), by blocks of points.

    In float64, where float32's products are exact: what is lost is 1e-15 of |x_i|², for points about their mean.
    """
    wide, squares = centroids.astype(np.float64), np.empty((len(x), len(centroids)))
    own = np.einsum("kd,kd->k", wide, wide)  # (K,)
    for block in _blocks(len(x), 8 * max(centroids.shape)):
        part = x[block].astype(np.float64)  # (block, d)
        squares[block] = np.einsum("nd,nd->n", part, part)[:, None] + own - 2 * part @ wide.T
    return np.maximum(squares, 0, out=squares)


def assign_all(x: Points, centroids: Points) -> tuple[Index, Points]:
    """As `assign`, with every cell filled: an empty cell's centroid goes to the farthest point.

    Returns the assignment (n,) and the centroids (K, d), of which only those of empty cells differ.
    Needs n ≥ K; among equal points the ties are split.
    """
    assignment, distance = assign(x, centroids)
    counts = np.bincount(assignment, minlength=len(centroids))
    if counts.all():
        return assignment, centroids
    centroids = centroids.copy()
    while not counts.all():
        cell = int(counts.argmin())
        donor = int(np.where(counts[assignment] > 1, distance, -1).argmax())  # not the only one of its cell
        centroids[cell] = x[donor]
        gap = np.square(x - x[donor]).sum(axis=1)  # |x_i − the new centroid|² (n,)
        closer = gap < distance
        closer[donor] = True
        assignment[closer], distance[closer] = cell, gap[closer]
        counts = np.bincount(assignment, minlength=len(centroids))
    return assignment, centroids


def cell_means(x: Points, assignment: Index, num_points: int, weights: Weights | None = None) -> Points:
    """c_k = Σ_{i∈k} w_i x_i / Σ_{i∈k} w_i, (K, d) float32, summed in float64; every cell must have some weight."""
    cells = cells_of(assignment, num_points)
    if weights is None:
        means = [x[cell].mean(axis=0, dtype=np.float64) for cell in cells]
    else:
        means = [weights[cell] @ x[cell].astype(np.float64) / weights[cell].sum() for cell in cells]
    return np.array(means, dtype=np.float32)


def own_squares(x: Points, assignment: Index, centroids: Points) -> Points:
    """|x_i − its centroid|², (n,) float32, by blocks of points."""
    squares = np.empty(len(x), np.float32)
    for block in _blocks(len(x), 4 * x.shape[1]):
        gap = x[block] - centroids[assignment[block]]  # (block, d)
        squares[block] = np.einsum("nd,nd->n", gap, gap)
    return squares


def medoids(squares: Points, assignment: Index, num_points: int) -> Index:
    """In each cell the point of least squared distance (n,), the first one among equals, (K,)."""
    return np.array([cell[squares[cell].argmin()] for cell in cells_of(assignment, num_points)])


def cells_of(assignment: Index, num_points: int) -> list[Index]:
    """The points of each cell in rising order, K arrays."""
    ends = np.cumsum(np.bincount(assignment, minlength=num_points))
    return np.split(np.argsort(assignment, kind="stable"), ends[:-1])


def masses_of(assignment: Index, num_points: int, weights: Weights | None) -> Weights:
    """v_k = Σ_{i∈k} w_i, (K,) float64: the counts of the cells where weights are None."""
    return np.bincount(assignment, weights, minlength=num_points).astype(np.float64)


def by_mass(assignment: Index, masses: Weights) -> Index:
    """Order of the cells: falling mass (K,), then the lowest index of a member, (K,)."""
    first = np.array([cell[0] for cell in cells_of(assignment, len(masses))])
    return np.lexsort((first, -masses))


def _blocks(n: int, row_bytes: int) -> list[slice]:
    step = max(1, BLOCK_BYTES // row_bytes)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
