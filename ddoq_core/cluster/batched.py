"""The exact quantiser for many classes at once, on a GPU where there is one.

The same method as `quantize(..., method="exact")` from the same starts: Gram matrices, seeding and Lloyd's
steps are batched over classes and starts, and in place of one single-point move at a time every problem makes
all the best moves that share no cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ddoq_core.cluster import exact, gram, partition
from ddoq_core.cluster.batched_gram import BatchCells, seed_cells
from ddoq_core.cluster.checks import check_points
from ddoq_core.cluster.partition import Centred
from ddoq_core.cluster.quantize import Quantization, finish, quantize

MAX_STEPS = 20_000


def quantize_batch(
    classes: Sequence[ArrayLike],
    num_points: int,
    *,
    seeds: Sequence[int],
    num_starts: int = 10,
    device: torch.device | str | None = None,
    max_bytes: int = 4 << 30,
) -> list[Quantization]:
    """Quantise each class (n_c, d) into `num_points` points, as `quantize` does with the class's own seed.

    device     CUDA where there is one, else CPU (correct there, but slower than `quantize`), unless given
    max_bytes  device memory for the classes that are worked on together
    A class gives the same result whatever others are in the batch, up to rounding. It differs from that of
    `quantize` as another order of moves does, by a fraction of a percent of inertia. Classes of K points, or
    of too many for a Gram matrix, are left to `quantize`.
    Raises ValueError as `quantize` does, and where the seeds are not one for each class.
    """
    if len(seeds) != len(classes):
        raise ValueError(f"{len(classes)} classes need as many seeds, got {len(seeds)}")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    results: list[Quantization] = []
    for group in _groups(classes, num_points, num_starts, max_bytes):
        if isinstance(group, int):
            results.append(quantize(classes[group], num_points, seed=seeds[group], num_starts=num_starts))
        else:
            part = slice(group.start, group.stop)
            results += _together(classes[part], num_points, seeds[part], num_starts, place)
    return results


def _groups(classes: Sequence[ArrayLike], num_points: int, num_starts: int, max_bytes: int) -> Iterator[range | int]:
    """Runs of neighbouring classes that fit `max_bytes` together, and single classes for the plain path."""
    start, largest = 0, 0
    for c, z in enumerate(classes):
        n, d = np.shape(z)
        plain = n <= num_points or not exact.fits_gram(n, d)
        grown = max(largest, 4 * n * (n + 2 * d + 5 * num_starts * num_points))
        if start < c and (plain or (c - start + 1) * grown > max_bytes):
            yield range(start, c)
            start, grown = c, 4 * n * (n + 2 * d + 5 * num_starts * num_points)
        largest = grown
        if plain:
            yield c
            start, largest = c + 1, 0
    if start < len(classes):
        yield range(start, len(classes))


def _together(
    classes: Sequence[ArrayLike], num_points: int, seeds: Sequence[int], num_starts: int, device: torch.device
) -> list[Quantization]:
    """Quantise classes of any lengths as one padded batch."""
    data = [partition.centre(check_points(z, num_points)) for z in classes]
    lengths = torch.tensor([len(c.x) for c in data])
    x = torch.zeros(len(data), int(lengths.max()), data[0].x.shape[1])  # (B, N, d)
    for row, c in zip(x, data, strict=True):
        row[: len(c.x)] = torch.from_numpy(c.x)
    real = torch.arange(x.shape[1]) < lengths[:, None]  # (B, N)
    starts = [np.random.SeedSequence(s).spawn(num_starts) for s in seeds]
    uniform = np.stack([gram.uniform_numbers(s, num_points) for s in starts])  # (B, R, K, trials)
    x = x.to(device)
    with _full_float32():
        best = _best_partitions(x, real.to(device), torch.from_numpy(uniform).to(device), num_points)  # (B, N)
        found = zip(data, x, best, strict=True)
        return [_measured(*one, num_points, num_starts) for one in found]


def _best_partitions(x: Tensor, real: Tensor, uniform: Tensor, num_points: int) -> Tensor:
    """The cells (B, N) of lowest inertia among the starts; x (B, N, d), uniform (B, R, K, trials)."""
    products = x @ x.mT  # (B, N, N)
    cells = BatchCells(products, real, seed_cells(products, real, uniform), num_points)
    for _ in range(exact.LLOYD_STEPS):
        cells.lloyd_step()
    for _ in range(MAX_STEPS):
        if not cells.disjoint_moves():
            break
    best = cells.inertia().argmin(1)  # (B,)
    return cells.assignment[torch.arange(len(best), device=best.device), best]


def _measured(data: Centred, x: Tensor, assignment: Tensor, num_points: int, num_starts: int) -> Quantization:
    """One class measured on the device, from its points (N, d) and cells (N,), both padded."""
    n = len(data.x)
    x, assignment = x[:n], assignment[:n]
    h = torch.nn.functional.one_hot(assignment, num_points).to(x.dtype)  # (n, K)
    means = (h.T @ x) / h.sum(0)[:, None]  # (K, d)
    squares = (x - means[assignment]).square().sum(1)  # (n,)
    arrays = (t.cpu().numpy() for t in (assignment, means, squares))
    return finish(data, *arrays, method="exact", starts=num_starts)


@contextmanager
def _full_float32() -> Iterator[None]:
    """Products in full float32: the 10 bits of TF32 are too few for differences of squared distances."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
