"""How other methods of the field choose the points of a class, to be compared with ours."""

from __future__ import annotations

import math

import numpy as np

from ddoq_core.cluster import exact, partition
from ddoq_core.cluster.partition import Index, Points

MARGIN = 0.9  # quantile of the distances in a cell at which its margin is taken: beyond lie outliers


def divisive(x: Points, num_points: int, num_starts: int, seed: np.random.SeedSequence) -> Index:
    """Cells (n,) of the centred points x (n, d): again and again the one of the largest inertia is cut in two.

    Source: bisecting k-means as in ManifoldGD (arXiv 2602.23295, published code, --cluster-method divisive and
    --divisive-criterion sse), which takes the best of ten starts of 2-means for each cut; here `num_starts` of ours.
    """
    assignment = np.zeros(len(x), np.intp)
    for cell in range(1, num_points):
        means = partition.cell_means(x, assignment, cell)
        squares = partition.own_squares(x, assignment, means).astype(np.float64)
        inertia = np.bincount(assignment, squares, minlength=cell)
        inertia[np.bincount(assignment, minlength=cell) < 2] = -1  # of equal points it is 0, and they can be cut
        members = np.flatnonzero(assignment == inertia.argmax())
        halves = exact.best_partition(x[members], 2, num_starts, seed.spawn(1)[0]) if len(members) > 2 else [0, 1]
        assignment[members[np.asarray(halves) == 1]] = cell
    return assignment


def centre_and_margin(x: Points, num_points: int, num_starts: int, seed: np.random.SeedSequence) -> Index:
    """K of the centred points x (n, d) themselves, (K,): of each of ⌈K/2⌉ cells the one nearest to its mean, and of the
    largest ⌊K/2⌋ another at the margin.

    Source: BPS ("Balanced Dataset Distillation via Modeling Multiple Visual Pattern Distribution", CVPR 2026, published
    code): half of the images from the centres of a class's patterns, half from their margins. Ours: patterns are cells
    of the exact quantiser, where BPS clusters a contrastive embedding by Infomap; and the margin is the point at nine
    tenths of the distances to the mean, where BPS takes the lower part of the tenth of highest entropy.
    """
    num_cells = math.ceil(num_points / 2)
    assignment = exact.best_partition(x, num_cells, num_starts, seed)
    squares = partition.own_squares(x, assignment, partition.cell_means(x, assignment, num_cells))
    left = [cell[np.argsort(squares[cell], kind="stable")] for cell in partition.cells_of(assignment, num_cells)]
    chosen = [cell[0] for cell in left]
    left = sorted((cell[1:] for cell in left), key=len, reverse=True)
    while len(chosen) < num_points:
        for k, cell in enumerate(left):
            if len(cell) and len(chosen) < num_points:
                at = int(MARGIN * (len(cell) - 1))
                chosen.append(cell[at])
                left[k] = np.delete(cell, at)
    return np.array(chosen)
