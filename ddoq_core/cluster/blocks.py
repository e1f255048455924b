"""A class that is larger than memory: passes over its blocks, of which one at a time is in memory.

Owns what a pass may ask of the points: their mean, some of them, the nearest of some centroids. Between passes only
numbers per point are kept, and the few points that were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddoq_core.cluster import partition
from ddoq_core.cluster.checks import real_array
from ddoq_core.cluster.partition import Index, Points

PART_BLOCKS = 16  # that one call goes through, so that its sums are worth sending

Each = Callable[..., Iterable[Any]]


@dataclass(frozen=True)
class Blocks:
    """A class as blocks of its points.

    read   block k, (b, d) real numbers, the same in every pass
    count  of blocks
    each   as the built-in map, in order; another one may share the calls out to processes, so what it is given pickles
    """

    read: Callable[[int], NDArray[Any]]
    count: int
    each: Each = map


@dataclass(frozen=True)
class Reader:
    """The points x (b, d) float32 of blocks, less the mean (d,) of the class."""

    read: Callable[[int], NDArray[Any]]
    mean: Points

    def __call__(self, part: range) -> Iterator[Points]:
        for k in part:
            x = self.read(k).astype(np.float32)
            x -= self.mean
            yield x

    def by_rows(self, part: range) -> Iterator[tuple[slice, Points]]:
        """Each block's place among the points of the part, and its points."""
        start = 0
        for x in self(part):
            yield slice(start, start + len(x)), x
            start += len(x)


class Passes:
    """Passes over a class of n points about their mean. The first one finds the mean; raises ValueError for points that
    are not finite.

    What is kept per point comes and goes as one array (n,), in the order of the blocks.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.parts = [range(k, min(k + PART_BLOCKS, blocks.count)) for k in range(0, blocks.count, PART_BLOCKS)]
        self._each = blocks.each
        found = list(self._each(partial(_totals, blocks.read), self.parts))
        self.ends = np.cumsum([n for n, _ in found])  # of the parts' points
        mean = sum(total for _, total in found) / len(self)  # (d,) float64
        if not np.isfinite(mean).all():
            raise ValueError(f"of {len(self)} points some are not finite; leave them out, or encode in float32")
        self.mean = mean.astype(np.float32)
        self._reader = Reader(blocks.read, self.mean)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def each(self, function: Callable[..., Any], *per_point: NDArray[Any]) -> Iterable[Any]:
        """function(points, part, *its rows of arrays (n, …)) of each part in order, `points` a Reader."""
        cut = [np.split(array, self.ends[:-1]) for array in per_point]
        return self._each(partial(function, self._reader), self.parts, *cut)

    def take(self, rows: Index) -> Points:
        """The points (m, d) of rows (m,) that all differ."""
        order = np.argsort(rows)
        wanted = np.zeros(len(self), bool)
        wanted[rows] = True
        found = np.empty((len(rows), len(self.mean)), np.float32)
        found[order] = np.concatenate(list(self.each(_chosen, wanted)))
        return found

    def nearest(self, centroids: Points) -> tuple[Index, Points]:
        """Nearest centroid (n,) of each point and the squared distance to it (n,)."""
        found = list(self.each(partial(_nearest, centroids)))
        return np.concatenate([k for k, _ in found]), np.concatenate([squares for _, squares in found])


class Ahead:
    """The points (n, d) in an order (n,) in which they will be asked for, as many as `room` read ahead.

    Every reading is a pass, so that an order over the whole class is had for n / room passes.
    """

    def __init__(self, points: Passes, order: Index, room: int) -> None:
        self._points, self._order, self._room = points, order, room
        self._at, self._read = 0, np.empty((0, len(points.mean)), np.float32)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, rows: Any) -> Points:
        """The points of the next rows of the order: (m, d), or (d,) of a single one."""
        num = np.size(rows)
        following = self._order[self._at : self._at + max(num, self._room)]
        assert np.array_equal(np.ravel(rows), following[:num]), "asked for in another order"
        if num > len(self._read):
            self._read = self._points.take(following)
        found, self._read = self._read[:num], self._read[num:]
        self._at += num
        return found if np.ndim(rows) else found[0]


def _totals(read: Callable[[int], NDArray[Any]], part: range) -> tuple[int, NDArray[np.float64]]:
    """How many points there are, and Σ z (d,)."""
    blocks = [(len(z), z.sum(axis=0, dtype=np.float64)) for z in (real_array("points", read(k)) for k in part)]
    return sum(n for n, _ in blocks), np.sum([total for _, total in blocks], axis=0)


def _chosen(points: Reader, part: range, wanted: NDArray[np.bool_]) -> Points:
    return np.concatenate([x[wanted[rows]] for rows, x in points.by_rows(part)])


def _nearest(centroids: Points, points: Reader, part: range) -> tuple[NDArray[np.int32], Points]:
    found = [partition.assign(x, centroids) for x in points(part)]
    return np.concatenate([k for k, _ in found]).astype(np.int32), np.concatenate([squares for _, squares in found])
