"""How near drawn pictures are to real ones, by what a network sees in them. Knows arrays only."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

NUM_NEIGHBOURS = 3  # as arXiv 1904.06991


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """|μ − ν|² + tr(Σ + Τ − 2·(Σ·Τ)^½) of features (n, d) and (m, d) (arXiv 1706.08500, there of Inception's).

    It is above 0 for samples of one distribution too, the more so the fewer they are: compare it at the same n and m.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    s, t = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))  # Σ, Τ (d, d)
    values, vectors = np.linalg.eigh(s)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T  # Σ^½
    cross = np.sqrt(np.linalg.eigvalsh(root @ t @ root).clip(0)).sum()  # tr (Σ^½·Τ·Σ^½)^½ = tr (Σ·Τ)^½
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s) + np.trace(t) - 2 * cross)


def precision_recall(real: ArrayLike, drawn: ArrayLike) -> tuple[float, float]:
    """Improved precision and recall (arXiv 1904.06991) of features (n, d) and (m, d).

    Precision is the share of what was drawn that lies within the distance of some real one to its third neighbour,
    recall the share of the real ones that lie so near to something drawn.
    """
    between = cdist(real, drawn)  # (n, m)
    precision = (between <= _radii(real)[:, None]).any(0).mean()
    recall = (between <= _radii(drawn)[None]).any(1).mean()
    return float(precision), float(recall)


def nearest(z: ArrayLike, real: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest of the real points (n, d) to each of the points (m, d), and how far it is, (m,) each, as a share of
    what real points are apart: their median distance to the nearest other. Near 0, a point is a copy."""
    real = np.asarray(real)
    between = cdist(z, real)  # (m, n)
    some = np.linspace(0, len(real) - 1, min(len(real), 500)).astype(int)
    to_others = cdist(real[some], real)
    to_others[np.arange(len(some)), some] = np.inf
    return between.argmin(1), between.min(1) / np.median(to_others.min(1))


def nearest_in_blocks(
    z: ArrayLike, blocks: Iterable[ArrayLike], num: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The num nearest of the real points to each of the points (m, d), and their distances, (m, num) each, the nearest
    first; of equally near ones the first. Real points come in blocks (b, d), of which one at a time is in memory."""
    z, start = np.asarray(z), 0
    found: NDArray[np.int64] = np.empty((len(z), 0), np.int64)
    distances: NDArray[np.float64] = np.empty((len(z), 0))
    for block in blocks:
        between = cdist(z, block)  # (m, b)
        rows = np.broadcast_to(np.arange(start, start + between.shape[1]), between.shape)
        distances = np.hstack([distances, between])
        order = np.argsort(distances, axis=1, kind="stable")[:, :num]  # (m, num)
        found = np.take_along_axis(np.hstack([found, rows]), order, 1)
        distances = np.take_along_axis(distances, order, 1)
        start += between.shape[1]
    return found, distances


def _radii(x: ArrayLike) -> NDArray[np.float64]:
    """The distance (n,) of each point to its third neighbour, or to the last where there are fewer."""
    return np.sort(cdist(x, x), axis=1)[:, : NUM_NEIGHBOURS + 1][:, -1]
