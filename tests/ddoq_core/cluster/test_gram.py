"""K-means in the Gram matrix: the same problem as on the points, and every step goes down."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from ddoq_core.cluster import exact
from ddoq_core.cluster.gram import Cells, nearest_seed, seed_points

Problem = tuple[np.ndarray, np.ndarray, int]


def problems(max_points: int = 40) -> st.SearchStrategy[Problem]:
    """Centred points (n, d), a partition of them (n,) that may leave cells empty, and K."""

    def build(args: tuple[int, int, int, int]) -> Problem:
        n, d, k, seed = args
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((n, d)).astype(np.float32)
        return x - x.mean(axis=0), rng.integers(min(k, n), size=n), min(k, n)

    numbers = st.tuples(st.integers(1, max_points), st.integers(1, 50), st.integers(1, 12), st.integers(0, 10**6))
    return numbers.map(build)


def inertia_of(x: np.ndarray, assignment: np.ndarray) -> float:
    """Σ |x_i − mean of its cell|² by the definition."""
    cells = (x[assignment == k].astype(np.float64) for k in np.unique(assignment))
    return float(sum(np.square(cell - cell.mean(axis=0)).sum() for cell in cells))


@settings(max_examples=60)
@given(problem=problems())
def test_lloyd_steps_never_raise_the_inertia_and_fill_every_cell(problem: Problem) -> None:
    x, start, k = problem
    cells = Cells(exact.gram_matrix(x), start, k)
    inertia = [cells.inertia]
    while cells.lloyd_step() and len(inertia) < 50:
        assert cells.counts.min() >= 1
        inertia.append(cells.inertia)
    assert (np.diff(inertia) <= 1e-9 * inertia[0] + 1e-9).all()
    assert cells.inertia == pytest.approx(inertia_of(x, cells.assignment), rel=1e-5, abs=1e-5)


@settings(max_examples=60)
@given(problem=problems())
def test_single_moves_only_lower_the_inertia_and_end_where_none_helps(problem: Problem) -> None:
    x, start, k = problem
    cells = Cells(exact.gram_matrix(x), start, k)
    inertia = [cells.inertia]
    while cells.single_moves():
        inertia.append(cells.inertia)
    assert (np.diff(inertia) < 0).all()
    assert cells.inertia == pytest.approx(inertia_of(x, cells.assignment), rel=1e-5, abs=1e-5)
    best = inertia_of(x, cells.assignment)
    for i in range(min(len(x), 8)):
        for b in range(k):
            moved = cells.assignment.copy()
            moved[i] = b
            if len(np.unique(moved)) == k:
                assert inertia_of(x, moved) >= best - 1e-4


@settings(max_examples=40)
@given(problem=problems())
def test_lloyd_in_the_gram_matrix_is_lloyd_on_the_points(problem: Problem) -> None:
    x, _, k = problem
    gram = exact.gram_matrix(x)
    [seeds] = seed_points(gram, k, np.random.SeedSequence(0).spawn(1))
    cells = Cells(gram, nearest_seed(gram, seeds), k)
    while cells.lloyd_step():
        pass
    plain = KMeans(k, init=x[seeds], n_init=1, tol=0, max_iter=1000).fit(x.astype(np.float64))
    assert cells.inertia == pytest.approx(plain.inertia_, rel=1e-4, abs=1e-4)
    np.testing.assert_array_equal(cells.assignment, plain.labels_)


def test_a_float32_gram_matrix_ends_as_low_as_float64() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 400)).astype(np.float32)
    wide = x.astype(np.float64)
    ends = []
    for gram in (x @ x.T, wide @ wide.T):
        cells = Cells(gram, np.arange(300) % 10, 10)
        exact.polish(cells)
        ends.append(inertia_of(x, cells.assignment))
        assert cells.inertia == pytest.approx(ends[-1], rel=1e-5)
    assert ends[0] == pytest.approx(ends[1], rel=5e-3)


def test_single_moves_go_on_where_lloyd_rests() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((300, 400)).astype(np.float32)
    cells = Cells(exact.gram_matrix(x), np.arange(300) % 30, 30)
    while cells.lloyd_step():
        pass
    rest = cells.inertia
    while cells.single_moves():
        pass
    assert cells.inertia < 0.98 * rest
    assert cells.lloyd_step() == 0  # the optimum of single moves is one of Lloyd's too


def test_seeds_are_distinct_points_and_each_start_has_its_own_stream() -> None:
    x = np.random.default_rng(2).standard_normal((50, 5)).astype(np.float32)
    seeds = np.random.SeedSequence(3).spawn(4)
    chosen = seed_points(exact.gram_matrix(x), 50, seeds)
    assert (np.sort(chosen, axis=1) == np.arange(50)).all()
    some = seed_points(exact.gram_matrix(x), 20, np.random.SeedSequence(3).spawn(4))
    fewer = seed_points(exact.gram_matrix(x), 20, np.random.SeedSequence(3).spawn(2))
    np.testing.assert_array_equal(some[:2], fewer)
    assert not np.array_equal(some[0], some[1])
