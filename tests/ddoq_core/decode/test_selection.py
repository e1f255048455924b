"""Which candidate is kept, against choices worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ddoq_core.decode.selection import cross_entropy, draw_members, select


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


def test_members_are_of_their_cell_and_none_comes_again_before_all_were_there() -> None:
    assignment, medoids = np.array([0, 0, 2, 0, 2, 0, 2]), np.array([3, 5, 6])
    cells: list[set[int]] = [{0, 1, 3, 5}, {5}, {2, 4, 6}]  # the second is empty: its medoid is another's
    for seed in range(20):
        found = draw_members(assignment, medoids, 6, seed)
        assert found.shape == (3, 6)
        for own, cell in zip(found, cells, strict=True):
            assert set(own[: len(cell)].tolist()) == cell
            np.testing.assert_array_equal(own[len(cell) :], own[: 6 - len(cell)])
        np.testing.assert_array_equal(draw_members(assignment, medoids, 2, seed), found[:, :2])
    assert len({draw_members(assignment, medoids, 1, seed)[0, 0] for seed in range(40)}) == 4


def test_members_with_the_weights_of_their_cells_have_the_mean_of_the_data() -> None:
    """Of a function that is not linear too, where the centroids are off."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=400)
    assignment, weights = (z > 0.5).astype(int), np.array([(z <= 0.5).mean(), (z > 0.5).mean()])
    drawn = [weights @ z[draw_members(assignment, np.array([0, 1]), 1, seed)[:, 0]] ** 2 for seed in range(4000)]
    centroids = np.array([z[assignment == k].mean() for k in (0, 1)])
    assert np.mean(drawn) == pytest.approx(np.mean(z**2), rel=0.05)
    assert weights @ centroids**2 < 0.8 * np.mean(z**2)
