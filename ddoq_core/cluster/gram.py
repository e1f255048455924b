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
    """A partition of n weighted points into K cells, none empty, with its sums in Gram space.

    Symbols: w (n,) are the points' weights, v_k = Σ_{i∈k} w_i the masses, s_k = Σ_{i∈k} w_i z_i the cell sums,
    P = s Zᵀ (K, n) their products with the points, q_k = |s_k|² = Σ_{i∈k} w_i P_ki. A cell's mean is m_k = s_k/v_k, so
    |z_i − m_k|² = G_ii − 2 P_ki/v_k + q_k/v_k², and the inertia is Σ_i w_i G_ii − Σ_k q_k/v_k.
    """

    def __init__(self, gram: Float, assignment: Index, num_cells: int, weights: Float | None = None) -> None:
        self.gram = gram  # G (n, n)
        self.squares = gram.diagonal().astype(np.float64)  # G_ii (n,)
        self.weights = np.ones(len(gram)) if weights is None else weights  # w (n,)
        self.assignment = assignment.astype(np.intp)  # (n,)
        self.counts = np.bincount(assignment, minlength=num_cells)  # (K,) points, which say whether a cell is empty
        self.masses = np.bincount(assignment, self.weights, num_cells)  # v (K,)
        # A gain is a difference of squared distances, so its rounding error grows with G_ii, not with the gain.
        mean_square = (self.weights * self.squares).sum() / self.weights.sum()
        self.noise = NOISE * float(np.finfo(gram.dtype).eps) * float(mean_square)  # per unit of weight
        everyone = np.arange(len(assignment))
        self.products = _weighted_sums(gram, everyone, self.assignment, self.weights, num_cells)  # P (K, n)
        self._refresh_norms()
        self.fill_empty()

    @property
    def inertia(self) -> float:
        """Σ_i w_i |z_i − m_{k(i)}|², float64."""
        return float((self.weights * self.squares).sum() - (self.norms / self.masses).sum())

    def distances(self) -> Float:
        """Squared distances of every point to every cell mean, (K, n); an empty cell is infinitely far."""
        with np.errstate(divide="ignore", invalid="ignore"):
            d: Float = self.products * (-2 / self.masses)[:, None].astype(self.gram.dtype)  # −2 P/v (K, n)
            d += (self.norms / self.masses**2)[:, None].astype(self.gram.dtype)  # + q/v²
        d += self.squares.astype(self.gram.dtype)  # + G_ii last: it is the largest, and the same for all cells
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
        """Give each empty cell the point that adds most to the inertia, w·|z − m|²."""
        for empty in np.flatnonzero(self.counts == 0):
            own = self.weights * self.distances()[self.assignment, np.arange(len(self.assignment))]
            own[self.counts[self.assignment] == 1] = -np.inf
            self._reassign(np.array([own.argmax()]), np.array([empty]))

    def single_moves(self) -> int:
        """One sweep of Hartigan's moves; returns how many points moved.

        Moving z_i from cell a to b adds w v_b/(v_b+w)·|z_i − m_b|² − w v_a/(v_a−w)·|z_i − m_a|² to the inertia (w its
        weight), which can be negative where Lloyd already rests. The largest gains go first.
        Source: Hartigan & Wong, Appl. Statist. AS 136 (1979), where w = 1.
        """
        gain = self._gains()  # (n,)
        candidates = np.flatnonzero(gain > self.noise * self.weights)
        return sum(self._try_move(i) for i in candidates[np.argsort(-gain[candidates], kind="stable")])

    def _gains(self) -> Float:
        """By how much the best move of each point would lower the inertia, (n,)."""
        v, w, a = self.masses, self.weights, self.assignment
        d, points = self.distances(), np.arange(len(a))  # (K, n), (n,)
        alone = self.counts[a] == 1
        leave = d[a, points] * (w * v[a] / np.where(alone, w, v[a] - w))
        leave[alone] = 0
        d *= (w * v[:, None] / (v[:, None] + w)).astype(d.dtype)
        d[a, points] = np.inf
        return np.asarray(leave - d.min(axis=0))

    def _try_move(self, i: int) -> bool:
        """Move point i to the cell that gains most, if any does."""
        v, w, a = self.masses, self.weights[i], self.assignment[i]
        if self.counts[a] == 1:
            return False
        d = self.squares[i] + (self.norms / v - 2 * self.products[:, i]) / v  # (K,)
        leave = d[a] * (w * v[a]) / (v[a] - w)
        join = d * (w * v / (v + w))  # (K,)
        join[a] = np.inf
        b = join.argmin()
        if leave - join[b] <= self.noise * w:
            return False
        self._move(i, a, b)
        return True

    def _move(self, i: int, a: int, b: int) -> None:
        """Move point i from cell a to b: q ← |s ∓ w z_i|² before P ← P ∓ w G_i, as it takes P of the old sums."""
        w, row = self.weights[i], self.weights[i] * self.gram[i]  # w z_i Zᵀ (n,)
        self.norms[a] += w * (w * self.squares[i] - 2 * self.products[a, i])
        self.norms[b] += w * (w * self.squares[i] + 2 * self.products[b, i])
        self.products[a] -= row
        self.products[b] += row
        self.masses[a] -= w
        self.masses[b] += w
        self.counts[a] -= 1
        self.counts[b] += 1
        self.assignment[i] = b

    def _reassign(self, moved: Index, target: Index) -> None:
        """Move points at once; only their rows of G are touched."""
        both, cells = np.concatenate([moved, moved]), np.concatenate([self.assignment[moved], target])
        signed = np.concatenate([-self.weights[moved], self.weights[moved]])
        self.products += _weighted_sums(self.gram, both, cells, signed, len(self.counts))
        self.assignment[moved] = target
        self.counts = np.bincount(self.assignment, minlength=len(self.counts))
        self.masses = np.bincount(self.assignment, self.weights, len(self.counts))
        self._refresh_norms()

    def _refresh_norms(self) -> None:
        own = self.weights * self.products[self.assignment, np.arange(len(self.assignment))]  # w_i P_{k(i) i} (n,)
        self.norms = np.bincount(self.assignment, own, len(self.counts))  # q (K,) float64


def _weighted_sums(gram: Float, points: Index, cells: Index, weights: Float, num_cells: int) -> Float:
    """Σ of weighted rows of G per cell, (K, n)."""
    shape = (num_cells, len(gram))
    matrix = coo_array((weights.astype(gram.dtype), (cells, points)), shape=shape)
    return np.asarray(matrix.tocsr() @ gram)


def seed_points(
    gram: Float, num_points: int, seeds: Sequence[np.random.SeedSequence], weights: Float | None = None
) -> Index:
    """Greedy k-means++ for all starts at once: indices of the chosen points, (starts, K).

    The first point is drawn with probability ∝ w; each next one is the best of 2 + ⌊ln K⌋ candidates drawn with
    probability ∝ w D², D² the squared distance to the nearest point chosen so far, the best being the one that leaves
    the least Σ w D². A start depends on its own seed only.
    Source: Arthur & Vassilvitskii (SODA 2007), in the greedy variant they name, where w = 1.
    """
    squares, uniform = gram.diagonal(), uniform_numbers(seeds, num_points)  # (n,), (starts, K, trials)
    w = np.ones(len(gram), gram.dtype) if weights is None else weights.astype(gram.dtype)  # (n,)
    starts, chosen = np.arange(len(seeds)), np.empty((len(seeds), num_points), np.intp)
    chosen[:, 0] = _draw(np.tile(w, (len(seeds), 1)), uniform[:, 0, :1])[:, 0]
    nearest = _rows_of_distances(gram, squares, chosen[:, 0])  # D² (starts, n)
    for k in range(1, num_points):
        tried = _draw(w * nearest, uniform[:, k])  # (starts, trials)
        closer = np.minimum(nearest[:, None], _rows_of_distances(gram, squares, tried))  # (starts, trials, n)
        best = (w * closer).sum(axis=2, dtype=np.float64).argmin(axis=1)
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
