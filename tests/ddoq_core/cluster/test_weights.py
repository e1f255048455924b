"""Training weights from cell counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddoq_core import class_weights, effective_sample_size

counts = st.lists(st.integers(1, 5000), min_size=1, max_size=60)


@given(v=counts, rule=st.sampled_from(["uniform", "sqrt", "mass"]) | st.floats(0, 4))
def test_weights_have_mean_one_and_follow_the_counts(v: list[int], rule: str | float) -> None:
    w = class_weights(v, rule)
    assert w.mean() == pytest.approx(1)
    assert (np.diff(w[np.argsort(v)]) >= -1e-12).all()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("uniform", [1, 1, 1]),
        ("sqrt", [12 / 8, 9 / 8, 3 / 8]),
        ("mass", [3 * 16 / 26, 3 * 9 / 26, 3 * 1 / 26]),
        ("sqrt-paper", np.sqrt([3 * 16 / 26, 3 * 9 / 26, 3 * 1 / 26])),
        (2.0, np.array([256, 81, 1]) * 3 / 338),
    ],
)
def test_each_rule_by_hand(rule: str | float, expected: list[float]) -> None:
    np.testing.assert_allclose(class_weights([16, 9, 1], rule), expected)


@given(v=counts)
def test_the_papers_square_root_has_mean_square_one(v: list[int]) -> None:
    w = class_weights(v, "sqrt-paper")
    assert np.square(w).mean() == pytest.approx(1) and w.mean() <= 1 + 1e-12


@given(v=counts)
def test_the_square_root_raises_the_effective_sample_size(v: list[int]) -> None:
    uniform, sqrt, mass = (effective_sample_size(class_weights(v, r)) for r in ("uniform", "sqrt", "mass"))
    assert uniform == pytest.approx(len(v))
    assert 1 - 1e-9 <= mass <= sqrt + 1e-9 <= uniform + 2e-9


@pytest.mark.parametrize(
    ("v", "rule", "words"),
    [
        ([3, 0], "mass", "positive"),
        ([], "mass", "non-empty"),
        ([1, 2], "cube", "'cube' is not one of uniform, sqrt, mass, sqrt-paper"),
        ([1, 2], -1.0, "got -1.0"),
    ],
)
def test_bad_input_is_refused(v: list[int], rule: str | float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        class_weights(v, rule)
