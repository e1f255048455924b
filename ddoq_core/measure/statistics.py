"""How sure a difference between methods is, from accuracies over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean, and between what bounds the true one is with the confidence LEVEL."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width: the mean ± this."""
        return (self.high - self.low) / 2


class Difference(NamedTuple):
    """The mean of paired differences with its interval, and p for its being 0 (two-sided t-test)."""

    interval: Interval
    p: float


def interval_of(values: ArrayLike) -> Interval:
    """Student's t-interval of the mean of values (n,), n ≥ 2; it says nothing of a spread that they do not show."""
    from scipy import stats  # takes a second, which every command of a run would wait for

    x = _values(values)
    mean, error = float(x.mean()), stats.sem(x)
    if error == 0:  # scipy gives NaN
        return Interval(mean, mean, mean)
    low, high = stats.t.interval(LEVEL, len(x) - 1, mean, error)
    return Interval(mean, float(low), float(high))


def paired_difference(a: ArrayLike, b: ArrayLike) -> Difference:
    """a − b over pairs (n,), n ≥ 2, where a pair has its seed in common. p is 1 for pairs that all differ by the same:
    there is no spread to judge by."""
    from scipy import stats

    difference = _values(a) - _values(b)
    if np.ptp(difference) < 1e-9:
        return Difference(interval_of(difference), 1.0)
    return Difference(interval_of(difference), float(stats.ttest_1samp(difference, 0).pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """p-values (m,) of m questions asked together, so corrected that with all of them true nulls one is below 0.05 at
    most one time in twenty: p̃_(j) = max_{i ≤ j} min((m − i + 1)·p_(i), 1).

    Source: Holm, Scand. J. Statist. 6 (1979). Unlike scipy's false_discovery_control it bounds the chance of any
    false find.
    """
    order = np.argsort(p)
    steps = np.asarray(p, dtype=np.float64)[order] * (len(p) - np.arange(len(p)))  # (m − i + 1)·p_(i)
    found = np.empty(len(p))
    found[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(x) for x in found]


def _values(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"need values of two seeds or more, got an array of shape {x.shape}")
    return x
