"""The quantiser: the best K points for the latents of one class.

Owns the public call and its result. Knows arrays of one class only: no files, no images, no other class.
The distortion a quantiser leaves is the squared Wasserstein distance of the distilled measure to the class
(arXiv 2501.07681, Proposition 1), so a lower inertia is a tighter bound on the error of the training
gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq_core.cluster import balanced, exact, partition, peers, streaming
from ddoq_core.cluster.checks import WITH_STARTS, Method, check_options, check_points, check_weights, check_whole
from ddoq_core.cluster.partition import Centred, Index, Points

NUM_STARTS = 10


@dataclass(frozen=True)
class Quantization:
    """K weighted points that stand for the n points of a class. Cells come in falling order of their masses.

    centroids   (K, d), in the units of the data: float32, or float64 where the points came so
    counts      (K,) int64, points in each cell, all ≥ 1; they sum to n
    masses      (K,) float64, p_k = Σ_{i∈k} w_i / Σ_i w_i, the best weights for these centroids; counts / n unless the
                points were weighted
    assignment  (n,) int32, the cell of each point, in the order the points were given
    inertia     Σ_i w_i |z_i − c_{k(i)}|², k(i) the cell of point i
    w2          sqrt(inertia / Σ_i w_i), the 2-Wasserstein distance to the class of the centroids with their masses
    medoids     (K,) int64, in each cell the index of the point nearest to the centroid; all differ
    method      how the points were found
    starts      how many starts were tried
    """

    centroids: NDArray[np.floating]
    counts: NDArray[np.int64]
    masses: NDArray[np.float64]
    assignment: NDArray[np.int32]
    inertia: float
    w2: float
    medoids: NDArray[np.int64]
    method: str
    starts: int


def quantize(
    z: ArrayLike,
    num_points: int,
    *,
    method: Method = "exact",
    seed: int = 0,
    num_starts: int | None = None,
    batch_size: int | None = None,
    step: tuple[float, float] | None = None,
    sample_weight: ArrayLike | None = None,
) -> Quantization:
    """Quantise the points z (n, d), real numbers, into `num_points` = K weighted points.

    method         "exact": Lloyd and Hartigan–Wong moves from `num_starts` k-means++ starts, the best one wins
                   "stream": one pass of mini-batch k-means, shuffled by the seed (as D4M and the paper)
                   "stream-d4m": the same, dropping the points of the last incomplete batch as D4M does
                   "clvq": one pass of competitive learning, shuffled by the seed (CLVQ as the paper defines it)
                   "balanced": cells of equal counts up to one, from the exact start: a uniform barycenter
                   "random": K of the points themselves
                   "divisive", "centre-margin": as ManifoldGD and BPS choose them, see ddoq_core.cluster.peers
    seed           a whole number ≥ 0
    num_starts     of exact, balanced and the peers'; 10 unless given
    batch_size     of the streams; K unless given, as in D4M's scripts
    step           (a, b) of CLVQ's steps γ_t = a / (a + b·t); γ = 1/v, the running mean, unless given
    sample_weight  w (n,) ≥ 0 of exact, the streams and random (which draws by it); 1 each unless given. A point of
                   weight 0 moves no centroid, but is assigned to one

    Distances are float32's, about the mean, which goes in float64: float64 points may lie at any offset. The result
    depends on the values and the seed alone, not on the order of the points. K = n gives the points themselves. Raises
    ValueError for points that are not a dense, finite, real (n, d) array or whose squared distances leave float32, for
    K < 1 or K > n, and for options that are out of bounds or not the method's.
    """
    points = check_points(z, num_points)
    options = {"num_starts": num_starts, "batch_size": batch_size, "step": step, "sample_weight": sample_weight}
    check_options(method, num_points, **options)
    check_whole("seed", seed, least=0)
    w = None if sample_weight is None else check_weights(sample_weight, len(points), num_points)
    data = partition.centre(points, w)
    part = _of_positive_weight(data)
    starts = 1
    if num_points < len(part.x) and method in WITH_STARTS:
        starts = num_starts or NUM_STARTS
    assignment, centroids = _cells(part, num_points, method, np.random.SeedSequence(seed), starts, batch_size, step)
    if centroids is None:
        centroids = partition.cell_means(part.x, assignment, num_points, part.weights)
    if data.weights is not None:
        everyone, _ = partition.assign(data.x, centroids)
        everyone[data.weights > 0] = assignment
        assignment = everyone
    squares = partition.own_squares(data.x, assignment, centroids)
    return finish(data, assignment, centroids, squares, method=method, starts=starts)


def _of_positive_weight(data: Centred) -> Centred:
    """The points that may move a centroid; `order` leads from them to the order in which they were given."""
    if data.weights is None:
        return data
    kept = data.weights > 0
    return Centred(data.x[kept], data.weights[kept], data.offset, data.order[kept])


def _cells(
    data: Centred,
    num_points: int,
    method: Method,
    rng: np.random.SeedSequence,
    num_starts: int,
    batch_size: int | None,
    step: tuple[float, float] | None,
) -> tuple[Index, Points | None]:
    """Cells (n,), none empty, and the centroids (K, d) where they are not the means of their cells."""
    x, w = data.x, data.weights
    if num_points == len(x):
        return np.arange(num_points), None
    if method in ("exact", "balanced"):
        assignment = exact.best_partition(x, num_points, num_starts, rng, w)
        return (balanced.balance(x, assignment, num_points) if method == "balanced" else assignment), None
    if method == "divisive":
        return peers.divisive(x, num_points, num_starts, rng), None
    if method == "centre-margin":
        return _points_themselves(x, peers.centre_and_margin(x, num_points, num_starts, rng))
    if method == "random":
        p = None if w is None else w / w.sum()
        return _points_themselves(x, np.random.default_rng(rng).choice(len(x), num_points, replace=False, p=p))
    if method == "clvq":
        return partition.assign_all(x, streaming.clvq(x, num_points, rng, step))
    drop_last = method == "stream-d4m"
    return partition.assign_all(x, streaming.stream(x, num_points, rng, batch_size, w, drop_last=drop_last))


def finish(
    data: Centred, assignment: Index, centroids: Points, squares: Points, *, method: str, starts: int
) -> Quantization:
    """The result from cells (n,), centred centroids (K, d) and squared distances (n,) of points to their own.

    Sorts the cells, and undoes centring and order.
    """
    num_points = len(centroids)
    masses = partition.masses_of(assignment, num_points, data.weights)  # v (K,)
    moving = assignment if data.weights is None else assignment[data.weights > 0]
    cells = partition.by_mass(moving, masses)  # (K,)
    assignment, masses = np.argsort(cells)[assignment], masses[cells]
    given = np.empty(len(assignment), np.int32)
    given[data.order] = assignment
    inertia = float(squares.sum(dtype=np.float64) if data.weights is None else data.weights @ squares)
    return Quantization(
        centroids=centroids[cells] + data.offset,
        counts=np.bincount(assignment, minlength=num_points).astype(np.int64),
        masses=masses / masses.sum(),
        assignment=given,
        inertia=inertia,
        w2=float(np.sqrt(inertia / masses.sum())),
        medoids=data.order[partition.medoids(squares, assignment, num_points)].astype(np.int64),
        method=method,
        starts=starts,
    )


def _points_themselves(x: Points, chosen: Index) -> tuple[Index, Points]:
    """Cells (n,) of some of the points (K,) as centroids; each keeps its own cell, also among equal points."""
    assignment, _ = partition.assign(x, x[chosen])
    assignment[chosen] = np.arange(len(chosen))
    return assignment, x[chosen]
