"""K-means carried out in the Gram matrix of one class.

A class of n images spans at most n of its d latent dimensions, so G = Z Zᵀ holds everything k-means needs:
after one matrix product, seeding, Lloyd's steps and single-point moves cost O(n) per moved point, whatever d
is. This module knows points only through G; it never sees coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

Float = NDArray[Any]  # float32 or float64
Index = NDArray[np.intp]

NOISE = 32  # a move must gain more than this many rounding errors of a squared norm


class Cells:
    """A partition of n points into K cells, none empty, with its sums in Gram space.

    Symbols: v (K,) are counts, s_k = Σ_{j∈k} z_j the cell sums, P = s Zᵀ (K, n) their products with the
    points, q (K,) = |s_k|². Then |z_i − s_k/v_k|² = G_ii − 2 P_ki/v_k + q_k/v_k².
    """

    def __init__(self, gram: Float, assignment: Index, num_cells: int) -> None:
        self.gram = gram  # (n, n)
        self.squares = gram.diagonal().astype(np.float64)  # (n,)
        self.noise = NOISE * float(np.finfo(gram.dtype).eps) * float(self.squares.mean())
        self.assignment = assignment.astype(np.intp)  # (n,)
        self.counts = np.bincount(assignment, minlength=num_cells).astype(np.float64)  # (K,)
        everyone = np.arange(len(assignment))
        self.products = _signed_sums(gram, everyone, self.assignment, np.ones(len(gram)), num_cells)  # (K, n)
        self._refresh_norms()
        self.fill_empty()

    @property
    def inertia(self) -> float:
        """Σ_i |z_i − mean of its cell|², float64."""
        return float(self.squares.sum() - (self.norms / self.counts).sum())

    def distances(self) -> Float:
        """Squared distances of every point to every cell mean, (K, n); an empty cell is infinitely far."""
        with np.errstate(divide="ignore", invalid="ignore"):
            d: Float = self.products * (-2 / self.counts)[:, None].astype(self.gram.dtype)
            d += (self.norms / self.counts**2)[:, None].astype(self.gram.dtype)
        d += self.squares.astype(self.gram.dtype)
        d[self.counts == 0] = np.inf
        return d

    def lloyd_step(self) -> int:
        """Assign every point to its nearest mean and move the means; returns how many points moved."""
        d = self.distances()  # (K, n)
        nearest = d.argmin(axis=0)  # (n,)
        own = d[self.assignment, np.arange(len(nearest))]
        moved = np.flatnonzero(own - d.min(axis=0) > 0)
        self._reassign(moved, nearest[moved])
        self.fill_empty()
        return len(moved)

    def fill_empty(self) -> None:
        """Give each empty cell the point farthest from its own mean, which lowers the inertia."""
        for empty in np.flatnonzero(self.counts == 0):
            own = self.distances()[self.assignment, np.arange(len(self.assignment))]
            own[self.counts[self.assignment] == 1] = -np.inf
            self._reassign(np.array([own.argmax()]), np.array([empty]))

    def single_moves(self) -> int:
        """One sweep of Hartigan's moves; returns how many points moved.

        Moving z_i from cell a to b (means m) adds v_b/(v_b+1)·|z_i − m_b|² − v_a/(v_a−1)·|z_i − m_a|² to the
        inertia, which can be negative where Lloyd already rests. Source: Hartigan & Wong, Appl. Statist. AS
        136 (1979).
        """
        gain = self._gains()  # (n,)
        candidates = np.flatnonzero(gain > self.noise)
        return sum(self._try_move(i) for i in candidates[np.argsort(-gain[candidates], kind="stable")])

    def _gains(self) -> Float:
        """By how much the best move of each point would lower the inertia, (n,)."""
        v, points = self.counts, np.arange(len(self.assignment))
        d = self.distances()  # (K, n)
        leave = d[self.assignment, points] * (v / np.maximum(v - 1, 1))[self.assignment]
        leave[v[self.assignment] == 1] = 0
        d *= (v / (v + 1))[:, None].astype(d.dtype)
        d[self.assignment, points] = np.inf
        return np.asarray(leave - d.min(axis=0))

    def _try_move(self, i: int) -> bool:
        """Move point i to the cell that gains most, if any does."""
        v, a = self.counts, self.assignment[i]
        if v[a] == 1:
            return False
        d = self.squares[i] + (self.norms / v - 2 * self.products[:, i]) / v  # (K,)
        leave = d[a] * v[a] / (v[a] - 1)
        join = d * (v / (v + 1))
        join[a] = np.inf
        b = join.argmin()
        if leave - join[b] <= self.noise:
            return False
        self.norms[a] += self.squares[i] - 2 * self.products[a, i]
        self.norms[b] += self.squares[i] + 2 * self.products[b, i]
        self.products[a] -= self.gram[i]
        self.products[b] += self.gram[i]
        v[a] -= 1
        v[b] += 1
        self.assignment[i] = b
        return True

    def _reassign(self, moved: Index, target: Index) -> None:
        """Move points at once; only their rows of G are touched."""
        both, cells = np.concatenate([moved, moved]), np.concatenate([self.assignment[moved], target])
        signs = np.repeat([-1.0, 1.0], len(moved))
        self.products += _signed_sums(self.gram, both, cells, signs, len(self.counts))
        self.assignment[moved] = target
        self.counts = np.bincount(self.assignment, minlength=len(self.counts)).astype(np.float64)
        self._refresh_norms()

    def _refresh_norms(self) -> None:
        own = self.products[self.assignment, np.arange(len(self.assignment))]  # (n,)
        self.norms = np.bincount(self.assignment, weights=own, minlength=len(self.counts))  # (K,) float64


def _signed_sums(gram: Float, points: Index, cells: Index, signs: Float, num_cells: int) -> Float:
    """Σ of signed rows of G per cell, (K, n)."""
    shape = (num_cells, len(gram))
    signed = coo_array((signs.astype(gram.dtype), (cells, points)), shape=shape)
    return np.asarray(signed.tocsr() @ gram)


def seed_points(gram: Float, num_points: int, seeds: Sequence[np.random.SeedSequence]) -> Index:
    """Greedy k-means++ for all starts at once: indices of the chosen points, (starts, K).

    Each next point is the best of 2 + ⌊ln K⌋ candidates drawn with probability ∝ D². A start depends on its
    own seed only. Source: Arthur & Vassilvitskii (SODA 2007), in the greedy variant they name.
    """
    n, squares, uniform = len(gram), gram.diagonal(), uniform_numbers(seeds, num_points)
    starts, chosen = np.arange(len(seeds)), np.empty((len(seeds), num_points), np.intp)
    chosen[:, 0] = uniform[:, 0, 0] * n
    nearest = _rows_of_distances(gram, squares, chosen[:, 0])  # (starts, n)
    for k in range(1, num_points):
        tried = _draw(nearest, uniform[:, k])  # (starts, trials)
        closer = np.minimum(nearest[:, None], _rows_of_distances(gram, squares, tried))  # (starts, trials, n)
        best = closer.sum(axis=2, dtype=np.float64).argmin(axis=1)
        chosen[:, k], nearest = tried[starts, best], closer[starts, best]
    return chosen


def uniform_numbers(seeds: Sequence[np.random.SeedSequence], num_points: int) -> NDArray[np.float64]:
    """The random numbers of each start's k-means++, (starts, K, trials)."""
    shape = (num_points, 2 + int(np.log(num_points)))
    return np.stack([np.random.default_rng(s).random(shape) for s in seeds])


def _rows_of_distances(gram: Float, squares: Float, points: Index) -> Float:
    """Squared distances of the points (...,) to all n, (..., n); never below 0."""
    d = gram[points]
    d *= -2
    d += squares
    d += squares[points][..., None]
    np.maximum(d, 0, out=d)
    np.put_along_axis(d, points[..., None], 0, axis=-1)
    return d


def _draw(weight: Float, uniform: Float) -> Index:
    """Indices drawn with probability ∝ weight (starts, n), for uniform numbers (starts, trials)."""
    cumulative = np.cumsum(weight, axis=1, dtype=np.float64)
    picks = [np.searchsorted(c, u * c[-1], side="right") for c, u in zip(cumulative, uniform, strict=True)]
    return np.asarray(np.minimum(np.array(picks), weight.shape[1] - 1))


def nearest_seed(gram: Float, seeds: Index) -> Index:
    """The cell (n,) of each point when the points `seeds` (K,) are the centres."""
    return np.asarray((gram.diagonal()[seeds][:, None] - 2 * gram[seeds]).argmin(axis=0))
