"""Which pictures stand for a cell: members of it at random, and of several pictures one that the teacher knows and that
is not like those kept already.

The teacher's cross entropy is RDED's score of realism (arXiv 2312.03526) and CaO2's of its samples (arXiv 2506.22637);
the likeness to what is kept stands against many pictures of one kind.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """−log p(class) (n,) in nats of logits (n, C)."""
    return np.asarray(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels], np.float32)


def draw_members(
    assignment: NDArray[np.integer[Any]], medoids: NDArray[np.integer[Any]], num: int, seed: int
) -> NDArray[np.int64]:
    """Of each cell `num` of its latents at random, (K, num) among the n of assignment (n,): none again before each of
    its cell was taken, and of an empty cell its medoid, of medoids (K,).

    One of each, with the cell's share of the data as its weight, is a stratified sample: the mean of a function over
    these is on average that over the data. Over the centroids it is so of linear functions alone.
    """
    order = np.random.default_rng(seed).permutation(len(assignment))
    cells = assignment[order]
    of_each = [order[cells == k] if (cells == k).any() else medoids[k : k + 1] for k in range(len(medoids))]
    return np.stack([own[np.arange(num) % len(own)] for own in of_each]).astype(np.int64)


def select(scores: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of each centroid of a class the candidate that is kept, (K,); scores (K, n) are cross entropies, features
    (K, n, d) what the teacher sees.

    Centroid by centroid the one of least score + cosine, to the nearest of those kept already.
    """
    directions = features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)
    kept: list[int] = []
    for k, own in enumerate(directions):  # (n, d)
        others = directions[range(k), kept]  # (k, d)
        likeness = (own @ others.T).max(axis=1, initial=-1.0)  # (n,), the least there is where none is kept
        kept.append(int((scores[k] + likeness).argmin()))
    return np.array(kept)
