"""Which candidate is kept, against choices worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ddoq_core.decode.selection import cross_entropy, select


def test_cross_entropy_of_the_class() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)) + 7
    np.testing.assert_allclose(cross_entropy(logits, np.array([0, 1])), [np.log(2), np.log(10)], rtol=1e-5)


def test_the_first_is_the_best_known_and_the_next_is_unlike_it() -> None:
    east, north, west = (1, 0), (0, 1), (-1, 0)
    features = np.array([[east, north], [east, west], [west, east]], np.float32) * 5  # (K, n, d)
    scores = np.array([[0.2, 0.3], [0.1, 1.9], [0.5, 0.5]], np.float32)
    # east is best known; then 0.1 + 1 for east against 1.9 − 1 for west; then both are there already
    assert select(scores, features).tolist() == [0, 1, 0]
    assert select(scores[:1, ::-1], features[:1]).tolist() == [1]


@pytest.mark.parametrize("length", [0.0, 1e-30])
def test_features_that_are_nothing_are_like_nothing(length: float) -> None:
    features = np.full((2, 2, 3), length, np.float32)
    assert select(np.array([[1, 0], [0, 1]], np.float32), features).tolist() == [1, 0]
