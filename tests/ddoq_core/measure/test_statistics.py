"""Intervals and tests against scipy's and against values by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ddoq_core.measure.statistics import holm, interval_of, paired_difference


def test_the_interval_is_students() -> None:
    found = interval_of([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * np.sqrt(2.5 / 5)  # t at 97.5 % and 4 degrees of freedom, from a table
    assert found == pytest.approx((3, 3 - half, 3 + half))
    assert found.half == pytest.approx(half)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_the_interval_is_the_one_written_by_hand(n: int) -> None:
    x = np.random.default_rng(n).normal(50, 3, n)
    half = stats.t.ppf(0.975, n - 1) * x.std(ddof=1) / np.sqrt(n)
    assert interval_of(x) == pytest.approx((x.mean(), x.mean() - half, x.mean() + half), abs=1e-12)
    assert interval_of(np.full(n, 7.0)) == (7, 7, 7)


def test_it_holds_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(7, 2, (4000, 5))
    held = [low <= 7 <= high for _, low, high in map(interval_of, draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.01)


def test_pairs_are_compared_as_pairs() -> None:
    rng = np.random.default_rng(1)
    seed = rng.normal(0, 10, 6)  # what a seed does to both is not in the difference
    a, b = seed + rng.normal(1, 0.1, 6), seed + rng.normal(0, 0.1, 6)
    found, expected = paired_difference(a, b), stats.ttest_rel(a, b)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval[1:] == pytest.approx(tuple(expected.confidence_interval()))
    assert found.interval.low > 0.5


def test_pairs_without_any_spread() -> None:
    assert paired_difference([0.5, 0.6], [0.5, 0.6]) == ((0, 0, 0), 1)
    assert paired_difference([3.0, 4.0], [1.0, 2.0]) == ((2, 2, 2), 1)


def test_many_questions_are_corrected_by_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 4·0.005, 3·0.01, 2·0.03
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize("values", [[], [1.0], [[1.0, 2.0]]])
def test_one_seed_has_no_spread(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two seeds or more"):
        interval_of(values)
