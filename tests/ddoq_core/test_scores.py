"""DD-Ranking's scores, against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from ddoq_core.scores import hard_label_recovery, improvement_over_random, label_robust_score


def test_the_differences_by_hand() -> None:
    assert hard_label_recovery(0.9, 0.6) == pytest.approx(0.3)
    assert improvement_over_random(0.7, 0.5) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("hlr", "ior", "weight", "alpha"),
    [(1.0, -1.0, 0.5, -1), (-1.0, 1.0, 0.5, 1), (0.3, 0.2, 0.5, -0.05), (0.3, 0.2, 1.0, 0.2), (0.3, 0.2, 0.0, -0.3)],
)
def test_the_score_by_hand(hlr: float, ior: float, weight: float, alpha: float) -> None:
    expected = (math.e**alpha - 1 / math.e) / (math.e - 1 / math.e)
    assert label_robust_score(hlr, ior, weight) == pytest.approx(expected)


def test_the_score_runs_from_nothing_to_one() -> None:
    assert label_robust_score(1, -1) == pytest.approx(0) and label_robust_score(-1, 1) == pytest.approx(1)
    assert label_robust_score(0, 0) == pytest.approx(0.26894, abs=1e-5)


@pytest.mark.parametrize("accuracy", [56.2, -0.1])
def test_per_cent_are_refused(accuracy: float) -> None:
    with pytest.raises(ValueError, match="is a fraction from 0 to 1"):
        hard_label_recovery(0.9, accuracy)
    with pytest.raises(ValueError, match="is a fraction from 0 to 1"):
        improvement_over_random(accuracy, 0.5)
