"""The quantiser of a class that is larger than memory, by passes over its blocks.

Exact k-means is seeded by k-means|| and goes on by Lloyd's steps, which both need sums over the blocks alone. A stream
takes the points in an order that the seed draws over the whole class, as it does in memory.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ddoq_core.cluster import exact, partition, streaming
from ddoq_core.cluster.blocks import Ahead, Blocks, Passes, Reader
from ddoq_core.cluster.checks import WHOLE, Method, check_options, check_whole
from ddoq_core.cluster.partition import Centred, Index, Points
from ddoq_core.cluster.quantize import NUM_STARTS, Quantization, finish

NUM_ROUNDS = 5  # of k-means||, which are enough in its paper
CANDIDATES_PER_POINT, LEAST_CANDIDATES = 2, 1600  # a round draws l = 2K, or more: from few, real latents end 1 % worse
MAX_STEPS = 100
TOLERANCE = 1e-5  # of the inertia: Lloyd ends where a step gains less
AHEAD_BYTES = 512 << 20  # of points that a stream reads ahead


def quantize_blocks(
    blocks: Blocks, num_points: int, *, method: Method = "exact", seed: int = 0, num_starts: int | None = None
) -> Quantization:
    """Quantise the class of these blocks into `num_points` = K weighted points, as `quantize` does in memory.

    method  "exact": k-means||, whose candidates are quantised in memory from `num_starts` starts, and Lloyd's steps
            "stream", "stream-d4m", "clvq", "random": as in memory, in the order of the blocks where the seed has none

    In memory are a block, and AHEAD_BYTES of a stream's points, or k-means||'s candidates, 8,001 or 10K + 1, with
    their Gram matrix of 256 MiB. The result depends on the order of the points, and to rounding on the blocks' sizes.
    Raises ValueError as `quantize` does, and for methods that look at all points at once, as "balanced".
    """
    check_options(method, num_points, num_starts=num_starts)
    check_whole("num_points", num_points)
    check_whole("seed", seed, least=0)
    if method in WHOLE:
        raise ValueError(f"method {method} needs the whole class in memory: take method exact")
    points, rng = Passes(blocks), np.random.SeedSequence(seed)
    if not 1 <= num_points <= len(points):
        raise ValueError(f"{num_points} points asked for, but the class has {len(points)}; ask for 1 to {len(points)}")
    starts, held = 1, np.empty(0, np.intp)
    if method == "exact":
        starts = num_starts or NUM_STARTS
        centroids = lloyd(points, seed_by_rounds(points, num_points, starts, rng))
    elif method == "random":
        held = np.random.default_rng(rng).choice(len(points), num_points, replace=False)
        centroids = points.take(held)
    else:
        centroids = _streamed(points, num_points, method, rng)
    assignment, centroids, squares = _full_cells(points, centroids, held)
    data = Centred(np.empty((0, len(points.mean)), np.float32), None, points.mean, np.arange(len(points)))
    return finish(data, assignment, centroids, squares, method=method, starts=starts)


def seed_by_rounds(points: Passes, num_points: int, num_starts: int, seed: np.random.SeedSequence) -> Points:
    """Centroids (K, d) by k-means||: few rounds that draw many candidates, which are then quantised by their cells.

    A round draws l points, without replacement and with probability ∝ D², D² the squared distance to the nearest
    candidate so far: those of the largest log(u)/D², u uniform (Efraimidis & Spirakis 2006). The first candidate is the
    mean. Source: Bahmani et al., "Scalable k-means++" (arXiv 1203.6402), algorithm 2, with exactly l points a round.
    """
    most = max(CANDIDATES_PER_POINT * num_points, LEAST_CANDIDATES)  # l
    rng = np.random.default_rng(seed)
    candidates = fresh = np.zeros_like(points.mean)[None]  # C (1, d)
    squares = np.full(len(points), np.inf, np.float32)  # D² (n,)
    owner = np.zeros(len(points), np.int32)  # which candidate is nearest (n,)
    for left in reversed(range(NUM_ROUNDS + 1)):
        first, draw = len(candidates) - len(fresh), most if left else 0
        passed = points.each(partial(_round, fresh, first, draw), squares, owner, rng.random(len(points)))
        parts, keys, fresh = [], np.empty(0), fresh[:0]
        for own_squares, own, own_keys, own_points in passed:
            parts.append((own_squares, own))
            keys, fresh = _largest(draw, np.append(keys, own_keys), np.concatenate([fresh, own_points]))
        squares, owner = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        candidates = np.concatenate([candidates, fresh])
    weights = np.bincount(owner, minlength=len(candidates)).astype(np.float64)  # (candidates,)
    candidates, weights = candidates[weights > 0], weights[weights > 0]
    if len(candidates) <= num_points:  # of few distinct points
        return np.resize(candidates, (num_points, candidates.shape[1]))
    cells = exact.best_partition(candidates, num_points, num_starts, seed, weights)
    return partition.cell_means(candidates, cells, num_points, weights)


def lloyd(points: Passes, centroids: Points) -> Points:
    """Centroids (K, d) after Lloyd's steps, each a pass; a centroid that wins no point stays where it is."""
    before = np.inf
    for _ in range(MAX_STEPS):
        sums, counts, inertia = np.zeros(centroids.shape), np.zeros(len(centroids)), 0.0
        for own_sums, own_counts, own_inertia in points.each(partial(_sums, centroids)):
            sums, counts, inertia = sums + own_sums, counts + own_counts, inertia + own_inertia
        if before - inertia <= TOLERANCE * inertia:
            break
        before = inertia
        won = counts > 0
        centroids = centroids.copy()
        centroids[won] = sums[won] / counts[won, None]  # c_k = Σ_{i∈k} x_i / v_k
    return centroids


def _streamed(points: Passes, num_points: int, method: Method, seed: np.random.SeedSequence) -> Points:
    """Centroids (K, d) of one pass in the order that the seed draws."""
    order = streaming.shuffled(len(points), seed)
    room = AHEAD_BYTES // (4 * len(points.mean))
    ahead = Ahead(points, order, room)
    if method == "clvq":
        return streaming.clvq(ahead, num_points, seed, None)
    return streaming.stream(ahead, num_points, seed, None, drop_last=method == "stream-d4m")


def _full_cells(points: Passes, centroids: Points, held: Index) -> tuple[Index, Points, Points]:
    """Cells (n,), none empty, the centroids (K, d), and the squared distances (n,) of points to their own.

    held  rows (K,) of points that are the centroids and keep their own cells, also among equal points; or none
    As in memory an empty cell's centroid goes to the farthest point, which it then holds.
    """
    holders = np.arange(len(held))  # the cells of the rows held
    while True:
        assignment, squares = points.nearest(centroids)
        assignment[held], squares[held] = holders, 0
        counts = np.bincount(assignment, minlength=len(centroids))
        empty = np.flatnonzero(counts == 0)
        if not len(empty):
            return assignment, centroids, squares
        distance = np.where(counts[assignment] > 1, squares, -1)
        distance[held] = -1
        farthest = np.argsort(-distance, kind="stable")[: len(empty)]
        centroids = centroids.copy()
        centroids[empty] = points.take(farthest)
        held, holders = np.append(held, farthest), np.append(holders, empty)


def _round(
    fresh: Points,
    first: int,
    draw: int,
    points: Reader,
    part: range,
    squares: Points,
    owner: NDArray[np.int32],
    uniform: NDArray[np.float64],
) -> tuple[Points, NDArray[np.int32], NDArray[np.float64], Points]:
    """D² and the nearest candidate of a part's points once `fresh` are candidates, `first` and following, and the
    points of the largest log(u)/D² with these keys."""
    squares, owner = squares.copy(), owner.copy()
    keys, chosen = np.empty(0), np.empty((0, fresh.shape[1]), np.float32)
    for rows, x in points.by_rows(part):
        nearest, distance = partition.assign(x, fresh) if len(fresh) else (owner[rows], squares[rows])
        closer = distance < squares[rows]
        owner[rows] = np.where(closer, first + nearest, owner[rows])
        squares[rows] = np.where(closer, distance, squares[rows])
        far = np.flatnonzero(squares[rows] > 0)
        own_keys = np.log(uniform[rows][far]) / squares[rows][far]
        best = _order(draw, own_keys)
        keys, chosen = _largest(draw, np.append(keys, own_keys[best]), np.concatenate([chosen, x[far[best]]]))
    return squares, owner, keys, chosen


def _order(num: int, keys: NDArray[np.float64]) -> Index:
    return np.argsort(-keys, kind="stable")[:num]


def _largest(num: int, keys: NDArray[np.float64], points: Points) -> tuple[NDArray[np.float64], Points]:
    best = _order(num, keys)
    return keys[best], points[best]


def _sums(centroids: Points, points: Reader, part: range) -> tuple[NDArray[np.float64], NDArray[np.int64], float]:
    """Σ_{i∈k} x_i (K, d), the counts (K,) and Σ |x_i − c_{k(i)}|² of a part's points."""
    sums, counts, inertia = np.zeros(centroids.shape), np.zeros(len(centroids), np.int64), 0.0
    for x in points(part):
        nearest, squares = partition.assign(x, centroids)
        cells = csr_array((np.ones(len(x), np.float32), nearest, np.arange(len(x) + 1)), (len(x), len(centroids)))
        sums += cells.T @ x
        counts += np.bincount(nearest, minlength=len(centroids))
        inertia += float(squares.sum(dtype=np.float64))
    return sums, counts, inertia
