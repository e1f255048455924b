"""K-means in the Gram matrices of many classes and starts at once, in torch.

The torch counterpart of `gram`. Axes of tensors: B classes, R starts, K cells, N points, padded to the
longest class and masked. Knows no coordinates, as `gram` does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ddoq_core.cluster import gram


@dataclass
class BatchCells:
    """Partitions of B classes from R starts each; symbols as in `gram.Cells`."""

    gram: Tensor  # (B, N, N), zero for padding
    real: Tensor  # (B, N) bool, False for padding
    assignment: Tensor  # (B, R, N)
    num_points: int

    def __post_init__(self) -> None:
        self.squares = self.gram.diagonal(dim1=1, dim2=2)  # (B, N)
        mean_square = self.squares.sum(1) / self.real.sum(1)
        self.noise = (gram.NOISE * torch.finfo(self.gram.dtype).eps * mean_square)[:, None, None]
        self.refresh()
        self.fill_empty()

    def refresh(self) -> None:
        """Sums of every cell from scratch: P = H G, one wide product."""
        batch, n = self.gram.shape[:2]
        cells = torch.arange(self.num_points, device=self.gram.device)[:, None]
        h = ((self.assignment[:, :, None] == cells) & self.real[:, None, None]).to(self.gram.dtype)  # (B, R, K, N)
        self.counts = h.sum(3)  # v (B, R, K)
        self.products = (h.view(batch, -1, n) @ self.gram).view_as(h)  # P (B, R, K, N)
        self.norms = (self.products * h).sum(3)  # q (B, R, K)

    def inertia(self) -> Tensor:
        """Σ_i G_ii − Σ_k q_k/v_k, (B, R) float64: a small difference of large sums."""
        kept = (self.norms.double() / self.counts).sum(2)  # Σ q/v (B, R)
        return self.squares.double().sum(1)[:, None] - kept

    def distances(self) -> Tensor:
        """Squared distances of points to cell means, (B, R, K, N); an empty cell is infinitely far."""
        v = self.counts
        d = self.products * (-2 / v)[..., None] + (self.norms / v**2)[..., None]  # −2 P/v + q/v²
        d = d + self.squares[:, None, None]  # + G_ii last: it is the largest, and the same for all cells
        return d.masked_fill(v[..., None] == 0, torch.inf)

    def own(self, d: Tensor) -> Tensor:
        """Of (B, R, K, N) what belongs to each point's own cell, (B, R, N)."""
        return d.gather(2, self.assignment[:, :, None]).squeeze(2)

    def fill_empty(self) -> None:
        """Give each empty cell the point farthest from its own mean."""
        while (self.counts == 0).any():
            d = self.own(self.distances())  # (B, R, N)
            alone = self.counts.gather(2, self.assignment) == 1
            far = d.masked_fill(alone | ~self.real[:, None], -torch.inf).argmax(2, keepdim=True)  # (B, R, 1)
            fewest, cell = self.counts.min(2, keepdim=True)
            target = torch.where(fewest == 0, cell, self.assignment.gather(2, far))
            self.assignment.scatter_(2, far, target)
            self.refresh()

    def lloyd_step(self) -> bool:
        """Assign all points to their nearest means and move the means; whether any point moved."""
        d = self.distances()
        nearest = d.argmin(2)  # (B, R, N)
        closer = (d.amin(2) < self.own(d)) & self.real[:, None]
        self.assignment = torch.where(closer, nearest, self.assignment)
        self.refresh()
        self.fill_empty()
        return bool(closer.any())

    def disjoint_moves(self) -> bool:
        """In every problem, all moves that gain most in both cells they touch; whether there was any.

        Moves that share no cell add up: the inertia falls by the sum of their gains (Hartigan & Wong, 1979).
        """
        gain, target = self._gains()  # (B, R, N) each
        best = _reduce(gain, self.assignment, target, self.num_points, "amax", -torch.inf)  # (B, R, K)
        wins = (gain > self.noise) & self._at_both(best, target, gain)
        index = torch.arange(gain.shape[2], device=gain.device).expand_as(gain)
        rank = torch.where(wins, index, index.shape[2])  # of equal gains in a cell, the first point's alone moves
        first = _reduce(rank, self.assignment, target, self.num_points, "amin", index.shape[2])
        b, r, i = (wins & self._at_both(first, target, index)).nonzero(as_tuple=True)
        self._move(b, r, i, self.assignment[b, r, i], target[b, r, i])
        return len(b) > 0

    def _gains(self) -> tuple[Tensor, Tensor]:
        """By how much each point's best move lowers the inertia, and the cell b it leads to from a.

        v_a/(v_a−1)·|z − m_a|² − v_b/(v_b+1)·|z − m_b|², as in `gram.Cells.single_moves`.
        """
        d, v = self.distances(), self.counts
        own_v = v.gather(2, self.assignment)  # (B, R, N)
        leave = torch.where(own_v > 1, self.own(d) * own_v / (own_v - 1).clamp(min=1), 0)
        d *= (v / (v + 1))[..., None]  # in place: d is the largest array
        join, target = d.scatter_(2, self.assignment[:, :, None], torch.inf).min(2)
        return (leave - join).masked_fill(~self.real[:, None], -torch.inf), target

    def _at_both(self, per_cell: Tensor, target: Tensor, value: Tensor) -> Tensor:
        """Where a point's value is that of its own cell and of its target, (B, R, N) bool."""
        return (per_cell.gather(2, self.assignment) == value) & (per_cell.gather(2, target) == value)

    def _move(self, b: Tensor, r: Tensor, i: Tensor, a: Tensor, t: Tensor) -> None:
        """Move points i of problems (b, r) from cells a to t; no cell is named twice."""
        square, row = self.squares[b, i], self.gram[b, i]
        self.norms[b, r, a] += square - 2 * self.products[b, r, a, i]  # q ← |s − z|², with P of the old s
        self.norms[b, r, t] += square + 2 * self.products[b, r, t, i]
        self.products[b, r, a] -= row
        self.products[b, r, t] += row
        self.counts[b, r, a] -= 1
        self.counts[b, r, t] += 1
        self.assignment[b, r, i] = t


def _reduce(value: Tensor, own: Tensor, target: Tensor, num_cells: int, how: str, start: float) -> Tensor:
    """Per cell the largest or smallest value of the moves that leave or enter it, (B, R, K)."""
    cells = torch.full((*value.shape[:2], num_cells), start, dtype=value.dtype, device=value.device)
    return cells.scatter_reduce_(2, own, value, how).scatter_reduce_(2, target, value, how)


def seed_cells(products: Tensor, real: Tensor, uniform: Tensor) -> Tensor:
    """Cells (B, R, N) around the points that greedy k-means++ chooses; see `gram.seed_points`."""
    batch, starts, num_points, _ = uniform.shape
    b = torch.arange(batch, device=products.device)[:, None]
    first = (uniform[:, :, 0, 0] * real.sum(1, keepdim=True)).long()  # (B, R)
    cells = torch.zeros(batch, starts, products.shape[1], dtype=torch.long, device=products.device)
    nearest = _distances_to(products, real, b, first)  # (B, R, N)
    for k in range(1, num_points):
        mass = nearest.double().cumsum(2)  # of D²; float32 would lose small ones beside a long sum
        tried = torch.searchsorted(mass, uniform[:, :, k] * mass[:, :, -1:], right=True)  # (B, R, trials)
        tried = torch.minimum(tried, real.sum(1)[:, None, None] - 1)
        offered = _distances_to(products, real, b[..., None], tried)  # (B, R, trials, N)
        total = torch.minimum(nearest[:, :, None], offered).double().sum(3)  # Σ D² (B, R, trials)
        chosen = total.argmin(2)[..., None, None].expand(-1, -1, 1, nearest.shape[2])
        taken = offered.gather(2, chosen).squeeze(2)  # (B, R, N)
        cells[taken < nearest] = k
        nearest = torch.minimum(nearest, taken)
    return cells


def _distances_to(products: Tensor, real: Tensor, b: Tensor, points: Tensor) -> Tensor:
    """Squared distances of `points` (B, ...) to all N of their class, (B, ..., N); 0 for padding."""
    squares = products.diagonal(dim1=1, dim2=2)  # (B, N)
    d = squares[b] + squares[b, points][..., None] - 2 * products[b, points]
    d = d.clamp(min=0).scatter(-1, points[..., None], 0)  # rounding may leave it below 0, and a point off itself
    return d * real[b]
