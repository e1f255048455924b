"""The quantiser: the best K points for the latents of one class.

Owns the public call and its result. Knows arrays of one class only: no files, no images, no other class.
The distortion a quantiser leaves is the squared Wasserstein distance of the distilled measure to the class
(arXiv 2501.07681, Proposition 1), so a lower inertia is a tighter bound on the error of the training
gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq_core.cluster import balanced, exact, partition, streaming
from ddoq_core.cluster.partition import Centred, Index, Points

Method = Literal["exact", "stream", "stream-d4m", "clvq", "balanced", "random"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Quantization:
    """K weighted points that stand for the n points of a class. Cells come in falling order of their counts.

    centroids  (K, d) float32, in the units of the data
    counts     (K,) int64, points per cell, all ≥ 1, from an assignment of every point; they sum to n
    assignment (n,) int32, the cell of each point, in the order the points were given
    inertia    Σ_i |z_i − its centroid|²
    w2         sqrt(inertia / n), the 2-Wasserstein distance to the class of the centroids with masses
    counts/n medoids    (K,) int64, in each cell the index of the point nearest to the centroid; all differ
    method     how the points were found
    starts     how many starts were tried
    """

    centroids: NDArray[np.float32]
    counts: NDArray[np.int64]
    assignment: NDArray[np.int32]
    inertia: float
    w2: float
    medoids: NDArray[np.int64]
    method: str
    starts: int

    @property
    def masses(self) -> NDArray[np.float64]:
        """p_k = counts_k / n, (K,): the best weights for these centroids."""
        return np.asarray(self.counts / self.counts.sum())


def quantize(
    z: ArrayLike,
    num_points: int,
    *,
    method: Method = "exact",
    seed: int = 0,
    num_starts: int = 10,
    batch_size: int | None = None,
    step: tuple[float, float] | None = None,
) -> Quantization:
    """Quantise the points z (n, d), float16 or float32, into `num_points` = K weighted points.

    method      "exact": Lloyd and Hartigan–Wong moves from `num_starts` k-means++ starts, the best one wins
                "stream": one pass of mini-batch k-means in the given order (as D4M and the paper)
                "stream-d4m": the same, dropping the points of the last incomplete batch as D4M does
                "clvq": one pass of competitive learning, shuffled by the seed (CLVQ as the paper defines it)
                "balanced": cells of equal counts up to one, from the exact start: a uniform barycenter
                "random": K of the points themselves
    batch_size  of the streams; K unless given, as in D4M's scripts
    step        (a, b) of CLVQ's steps γ_t = a / (a + b·t); γ = 1/v, the running mean, unless given

    The result depends on the values and the seed alone; except for the streams, not on the order of the
    points. K = n gives the points themselves. Raises ValueError for points that are not a finite (n, d)
    array, for K < 1 or K > n, and for options that make no sense.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)}")
    data = partition.centre(check_points(z, num_points))
    x, order, rng = data.x, data.order, np.random.SeedSequence(seed)
    centroids: Points | None = None
    starts = 1
    if num_points == len(x):
        assignment = np.arange(num_points)
    elif method in ("exact", "balanced"):
        assignment, starts = exact.best_partition(x, num_points, num_starts, rng), num_starts
        if method == "balanced":
            assignment = balanced.balance(x, assignment, num_points)
    elif method == "random":
        assignment, centroids = _random_points(x, num_points, rng)
    elif method == "clvq":
        assignment, centroids = partition.assign_all(x, streaming.clvq(x, num_points, rng, step))
    else:
        given, drop_last = x[np.argsort(order)], method == "stream-d4m"
        streamed = streaming.stream(given, num_points, rng, batch_size, drop_last=drop_last)
        assignment, centroids = partition.assign_all(x, streamed)
    if centroids is None:
        centroids = partition.cell_means(x, assignment, num_points)
    squares = partition.own_squares(x, assignment, centroids)
    return finish(data, assignment, centroids, squares, method=method, starts=starts)


def finish(
    data: Centred, assignment: Index, centroids: Points, squares: Points, *, method: str, starts: int
) -> Quantization:
    """The result from cells (n,), centred centroids (K, d) and squared distances (n,) of points to their own.

    Sorts the cells, and undoes centring and order.
    """
    num_points = len(centroids)
    cells = partition.by_mass(assignment, num_points)  # (K,)
    assignment = np.argsort(cells)[assignment]
    given = np.empty(len(assignment), np.int32)
    given[data.order] = assignment
    inertia = float(squares.sum(dtype=np.float64))
    return Quantization(
        centroids=centroids[cells] + data.offset,
        counts=np.bincount(assignment, minlength=num_points).astype(np.int64),
        assignment=given,
        inertia=inertia,
        w2=float(np.sqrt(inertia / len(assignment))),
        medoids=data.order[partition.medoids(squares, assignment, num_points)].astype(np.int64),
        method=method,
        starts=starts,
    )


def check_points(z: ArrayLike, num_points: int) -> Points:
    """The points as a float32 array (n, d), or a ValueError that says what is wrong with them or with K."""
    z = np.ascontiguousarray(z, dtype=np.float32)
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(f"points must be an (n, d) array, got shape {z.shape}; flatten latents to (n, C·H·W)")
    if not 1 <= num_points <= len(z):
        raise ValueError(f"{num_points} points asked for, but the class has {len(z)}; ask for 1 to {len(z)}")
    if not np.isfinite(z).all():
        raise ValueError(f"{int((~np.isfinite(z)).any(axis=1).sum())} of {len(z)} points are not finite")
    return z


def _random_points(x: Points, num_points: int, seed: np.random.SeedSequence) -> tuple[Index, Points]:
    """K of the points drawn without replacement; each keeps its own cell, also among equal points."""
    chosen = np.random.default_rng(seed).choice(len(x), num_points, replace=False)
    assignment, _ = partition.assign(x, x[chosen])
    assignment[chosen] = np.arange(num_points)
    return assignment, x[chosen]
