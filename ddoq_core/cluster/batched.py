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
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddoq_core.cluster import exact, gram, partition
from ddoq_core.cluster.batched_gram import BatchCells, seed_cells
from ddoq_core.cluster.checks import check_options, check_points
from ddoq_core.cluster.partition import Centred
from ddoq_core.cluster.quantize import NUM_STARTS, Quantization, finish, quantize
from ddoq_core.devices import best_device
from ddoq_core.memory import is_out_of_memory

Batch = Sequence[NDArray[np.floating]]
MAX_STEPS = 20_000
COPIES = 5  # arrays (R, K + 1, N) that are alive at once while cells move: H, P, distances and what they are made of


def quantize_batch(
    classes: Sequence[ArrayLike],
    num_points: int,
    *,
    seeds: Sequence[int],
    num_starts: int = NUM_STARTS,
    device: torch.device | str | None = None,
    max_bytes: int = 4 << 30,
) -> list[Quantization]:
    """Quantise each class (n_c, d) into `num_points` = K points, as `quantize` does with the class's own seed.

    device     `best_device()` unless given; on a CPU the results are right, but slower than `quantize`
    max_bytes  device memory to work in. Neighbouring classes that fit it go together, and of a class that does not,
               as many starts; one class from one start is the least. Where the device has less, groups are halved,
               and what does not fit it at all is left to `quantize`
    A class gives the same result whatever others are in the batch, up to rounding. It differs from that of
    `quantize` as another order of moves does, by a fraction of a percent of inertia. Classes of K points, or of too
    many for a Gram matrix, are left to `quantize`. Raises ValueError as `quantize` does, and where the seeds are not
    one for each class.
    """
    if len(seeds) != len(classes):
        raise ValueError(f"{len(classes)} classes need as many seeds, got {len(seeds)}")
    check_options("exact", num_points, num_starts=num_starts)
    place = torch.device(device) if device is not None else best_device()
    points = [check_points(z, num_points) for z in classes]
    results: list[Quantization] = []
    for group in _groups(points, num_points, num_starts, max_bytes):
        at_once = _starts_within(max_bytes, points[group], num_points, num_starts)
        solve = _together if all(_is_batched(z, num_points) for z in points[group]) else _one_by_one
        results += solve(points[group], num_points, seeds[group], num_starts, place, at_once)
    return results


def _groups(points: Batch, num_points: int, num_starts: int, max_bytes: int) -> Iterator[slice]:
    """Runs of neighbouring classes that fit `max_bytes` together; each of the others alone."""

    def fit(part: Batch) -> bool:
        alike = all(_is_batched(z, num_points) and z.shape[1] == part[0].shape[1] for z in part)
        return alike and _bytes_of(part, num_points, num_starts) <= max_bytes

    start = 0
    for end in range(1, len(points) + 1):
        if end == len(points) or not fit(points[start : end + 1]):
            yield slice(start, end)
            start = end


def _is_batched(z: NDArray[np.floating], num_points: int) -> bool:
    return len(z) > num_points and exact.fits_gram(*z.shape)


def _bytes_of(points: Batch, num_points: int, num_starts: int) -> int:
    """Device memory of B classes padded to N: G (B, N, N), the points twice, and R starts, in float32."""
    n, d = max(map(len, points)), points[0].shape[1]
    return 4 * len(points) * n * (n + 2 * d + COPIES * num_starts * (num_points + 1))


def _starts_within(max_bytes: int, points: Batch, num_points: int, num_starts: int) -> int:
    """How many starts fit at once, from 1 to all."""
    none, one = (_bytes_of(points, num_points, starts) for starts in (0, 1))
    return int(np.clip((max_bytes - none) // (one - none), 1, num_starts))


def _one_by_one(
    points: Batch, num_points: int, seeds: Sequence[int], num_starts: int, *_: object
) -> list[Quantization]:
    return [quantize(z, num_points, seed=s, num_starts=num_starts) for z, s in zip(points, seeds, strict=True)]


def _together(
    points: Batch,
    num_points: int,
    seeds: Sequence[int],
    num_starts: int,
    device: torch.device,
    at_once: int,
) -> list[Quantization]:
    """Quantise classes of any lengths as one padded batch, `at_once` starts at a time, or by halves of either."""
    try:
        return _as_one_batch(points, num_points, seeds, num_starts, device, at_once)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise  # else leave the handler first: its traceback holds the tensors that are in the way
    if len(points) > 1:
        halves = (slice(0, len(points) // 2), slice(len(points) // 2, None))
        parts = [_together(points[h], num_points, seeds[h], num_starts, device, at_once) for h in halves]
        return parts[0] + parts[1]
    if at_once > 1:
        return _together(points, num_points, seeds, num_starts, device, at_once // 2)
    return _one_by_one(points, num_points, seeds, num_starts)


def _as_one_batch(
    points: Batch,
    num_points: int,
    seeds: Sequence[int],
    num_starts: int,
    device: torch.device,
    at_once: int,
) -> list[Quantization]:
    data = [partition.centre(z) for z in points]
    x, real = _padded(data, device)  # (B, N, d), (B, N)
    starts = [np.random.SeedSequence(s).spawn(num_starts) for s in seeds]
    uniform = np.stack([gram.uniform_numbers(s, num_points) for s in starts])  # (B, R, K, trials)
    with _full_float32():
        best = _best_partitions(x, real, uniform, num_points, at_once)  # (B, N)
        found = zip(data, x, best, strict=True)
        return [_measured(*one, num_points, num_starts) for one in found]


def _padded(data: Sequence[Centred], device: torch.device) -> tuple[Tensor, Tensor]:
    """Points (B, N, d) on the device, zero beyond a class's own, and which are its own (B, N) bool."""
    lengths = torch.tensor([len(c.x) for c in data])
    x = torch.zeros(len(data), int(lengths.max()), data[0].x.shape[1], device=device)
    for row, c in zip(x, data, strict=True):
        row[: len(c.x)] = torch.from_numpy(c.x)
    return x, (torch.arange(x.shape[1]) < lengths[:, None]).to(device)


def _best_partitions(x: Tensor, real: Tensor, uniform: NDArray[np.float64], num_points: int, at_once: int) -> Tensor:
    """The cells (B, N) of lowest inertia among the starts; x (B, N, d), uniform (B, R, K, trials)."""
    products = x @ x.mT  # G (B, N, N)
    least = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)  # (B,)
    best = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)  # (B, N)
    for start in range(0, uniform.shape[1], at_once):
        part = torch.from_numpy(uniform[:, start : start + at_once]).to(x.device)
        inertia, assignment = _best_of(products, real, part, num_points)
        better = inertia < least
        best = torch.where(better[:, None], assignment, best)
        least = torch.where(better, inertia, least)
    return best


def _best_of(products: Tensor, real: Tensor, uniform: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
    """Of the starts (B, R, K, trials) worked on together the lowest inertia (B,) and its cells (B, N)."""
    cells = BatchCells(products, real, seed_cells(products, real, uniform), num_points)
    for _ in range(exact.LLOYD_STEPS):
        cells.lloyd_step()
    for _ in range(MAX_STEPS):
        if not cells.disjoint_moves():
            break
    inertia, best = cells.inertia().min(1)  # (B,)
    return inertia, cells.assignment[torch.arange(len(best), device=best.device), best]


def _measured(data: Centred, x: Tensor, assignment: Tensor, num_points: int, num_starts: int) -> Quantization:
    """One class measured on the device, from its points (N, d) and cells (N,), both padded."""
    n = len(data.x)
    x, assignment = x[:n], assignment[:n]
    h = torch.nn.functional.one_hot(assignment, num_points).to(x.dtype)  # H (n, K)
    means = (h.T @ x) / h.sum(0)[:, None]  # Hᵀ X / v (K, d)
    squares = (x - means[assignment]).square().sum(1)  # from differences: products would cancel (n,)
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
