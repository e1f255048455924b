"""One-pass quantisers: mini-batch k-means as D4M runs it, and competitive learning as the paper writes it.

They give centroids only. The counts they keep on the way are not the masses of the cells (reassignment
rewrites them, and early points were counted for centroids that moved on), so masses come from a final
assignment.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from ddoq_core.cluster.partition import Index, Points, Weights


class Rows(Protocol):
    """Points (n, d), of which some rows are taken at a time: an array, or what reads them."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Points: ...


def shuffled(n: int, seed: np.random.SeedSequence) -> Index:
    """The order (n,) in which a stream takes the points, each once."""
    return np.random.default_rng(seed).permutation(n)


def stream(
    x: Rows,
    num_points: int,
    seed: np.random.SeedSequence,
    batch_size: int | None,
    weights: Weights | None = None,
    *,
    drop_last: bool,
) -> Points:
    """Centroids (K, d) after one pass of scikit-learn's partial_fit over x (n, d), shuffled by the seed.

    A batch moves a centroid to the weighted mean of all it has won: c ← (v·c + Σ w_i x_i) / (v + Σ w_i).
    Source: Sculley, "Web-scale k-means clustering" (WWW 2010), as D4M (arXiv 2407.15138) runs it, which shuffles
    the images and drops the points of the last incomplete batch (`drop_last`).
    """
    size = min(num_points if batch_size is None else batch_size, len(x))
    model = MiniBatchKMeans(num_points, random_state=int(seed.generate_state(1)[0]), compute_labels=False)
    order = shuffled(len(x), seed)
    end = len(x) // size * size if drop_last else len(x)
    for start in range(0, end, size):
        batch = order[start : min(start + size, end)]
        model.partial_fit(x[batch], sample_weight=None if weights is None else weights[batch])
    return np.asarray(model.cluster_centers_, dtype=np.float32)


def clvq(x: Rows, num_points: int, seed: np.random.SeedSequence, step: tuple[float, float] | None) -> Points:
    """Centroids (K, d) after one pass of competitive learning over x (n, d), shuffled by the seed.

    The winner moves by z ← z − γ(z − ξ), with γ = 1/v, v the points it has won (mini-batch k-means of batch
    1), or γ_t = a/(a + b·t) for `step` = (a, b). The first K points are the first centroids.
    Source: arXiv 2501.07681; Pagès, "Introduction to vector quantization" (ESAIM Proc. 2015).
    """
    order = shuffled(len(x), seed)
    c = x[order[:num_points]]  # (K, d)
    squares = np.einsum("kd,kd->k", c, c)  # (K,)
    wins = np.ones(num_points)  # v (K,)
    for t, i in enumerate(order[num_points:], start=1):
        xi = x[i]  # ξ (d,)
        k = (squares - 2 * (c @ xi)).argmin()  # the winner: argmin |c_k − ξ|²
        wins[k] += 1
        gamma = 1 / wins[k] if step is None else step[0] / (step[0] + step[1] * t)
        c[k] -= np.float32(gamma) * (c[k] - xi)  # z_k ← z_k − γ(z_k − ξ)
        squares[k] = c[k] @ c[k]
    return c
