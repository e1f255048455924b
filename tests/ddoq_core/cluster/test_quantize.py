"""The public quantiser: what every method promises, and what it refuses."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.cluster import BisectingKMeans, KMeans, MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score

from ddoq_core import Quantization, quantize
from ddoq_core.cluster.balanced import equal_cells
from ddoq_core.cluster.checks import METHODS, TAKEN_BY, Method
from ddoq_core.cluster.partition import canonical_order
from ddoq_core.measure.wasserstein import w2

# Stores made before stay valid: start of the sha256 of centroids, counts, assignment and medoids, and the inertia.
GOLDEN = {
    "exact": ("e7ed30623c0851ba", 3637.9081811904907),
    "stream": ("146dbb45e87cc22c", 3841.0089950561523),
    "stream-d4m": ("0185ded4d1f930d3", 3848.643732070923),
    "clvq": ("7c70753a16673240", 4001.9748916625977),
    "balanced": ("b6a4d238fa9cf5bb", 3697.714442253113),
    "random": ("955aa7e671205164", 6646.337646484375),
    "divisive": ("589474839cd95280", 3732.007212162018),
    "centre-margin": ("88f07f7c3d0f6dfe", 5218.659912109375),
}


def blobs(n: int, d: int, seed: int, spread: float = 1.0) -> np.ndarray:
    """n points around 5 centres in d dimensions, float32."""
    rng = np.random.default_rng(seed)
    return (4 * rng.standard_normal((5, d))[rng.integers(5, size=n)] + spread * rng.standard_normal((n, d))).astype(
        np.float32
    )


def problems() -> st.SearchStrategy[tuple[np.ndarray, int]]:
    """Points, at times with duplicates, and a K that fits them."""
    shapes = st.tuples(st.integers(1, 40), st.integers(1, 6), st.integers(0, 10**6), st.booleans())

    def build(args: tuple[int, int, int, bool]) -> st.SearchStrategy[tuple[np.ndarray, int]]:
        n, d, seed, repeat = args
        z = blobs(n, d, seed)
        return st.tuples(st.just(z[np.arange(n) % max(1, n // 3)] if repeat else z), st.integers(1, n))

    return shapes.flatmap(build)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("method", METHODS)
def test_results_are_those_of_stores_made_before(method: Method, dtype: type[np.floating]) -> None:
    z = np.random.default_rng(0).integers(-512, 512, (64, 6)) / 64  # exact in float16, its sums in float32
    q = quantize(z.astype(dtype), 7, method=method, seed=3)
    arrays = (q.centroids, q.counts, q.assignment, q.medoids)
    digest = hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()
    assert (digest[:16], q.inertia) == GOLDEN[method]


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25)
@given(problem=problems(), seed=st.integers(0, 99))
def test_every_method_gives_full_cells_and_true_measures(
    method: Method, problem: tuple[np.ndarray, int], seed: int
) -> None:
    z, k = problem
    q = quantize(z, k, method=method, seed=seed)
    assert q.centroids.shape == (k, z.shape[1]) and q.centroids.dtype == np.float32
    assert q.counts.dtype == np.int64 and q.counts.min() >= 1 and q.counts.sum() == len(z)
    assert (np.bincount(q.assignment, minlength=k) == q.counts).all()
    assert (np.diff(q.counts) <= 0).all()
    assert (q.assignment[q.medoids] == np.arange(k)).all()
    gap = z.astype(np.float64) - q.centroids[q.assignment]
    assert q.inertia == pytest.approx(np.square(gap).sum(), rel=1e-4, abs=1e-6)
    assert q.w2 == pytest.approx(np.sqrt(q.inertia / len(z)))


@settings(max_examples=40)
@given(problem=problems())
def test_exact_centroids_are_the_means_of_their_nearest_points(problem: tuple[np.ndarray, int]) -> None:
    z, k = problem
    q = quantize(z, k)
    for cell in range(k):
        np.testing.assert_allclose(q.centroids[cell], z[q.assignment == cell].mean(axis=0), atol=1e-4)
    squares = np.square(z[:, None] - q.centroids).sum(axis=2)  # (n, K)
    own = squares[np.arange(len(z)), q.assignment]
    np.testing.assert_allclose(own, squares.min(axis=1), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25)
@given(problem=problems(), seed=st.integers(0, 99))
def test_order_of_the_points_changes_labels_only(method: Method, problem: tuple[np.ndarray, int], seed: int) -> None:
    z, k = problem
    shuffle = np.random.default_rng(seed).permutation(len(z))
    q, shuffled = quantize(z, k, method=method), quantize(z[shuffle], k, method=method)
    np.testing.assert_array_equal(q.centroids, shuffled.centroids)
    np.testing.assert_array_equal(q.counts, shuffled.counts)
    np.testing.assert_array_equal(z[q.medoids], z[shuffle][shuffled.medoids])


@pytest.mark.parametrize("method", METHODS)
def test_mass_weights_make_w2_free(method: Method) -> None:
    z = blobs(120, 8, seed=1)
    q = quantize(z, 7, method=method)
    assert w2(z, q.centroids, q.masses) == pytest.approx(q.w2, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides(method: Method) -> None:
    z = blobs(200, 8, seed=2)
    first, again = (quantize(z, 9, method=method, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.centroids, again.centroids)
    if method in ("random", "clvq"):
        assert not np.array_equal(first.centroids, quantize(z, 9, method=method, seed=6).centroids)


@pytest.mark.parametrize("method", METHODS)
def test_as_many_points_as_data_gives_the_data(method: Method) -> None:
    z = blobs(17, 3, seed=3)
    q = quantize(z, 17, method=method)
    np.testing.assert_allclose(q.centroids[q.assignment], z, atol=1e-6)
    assert q.inertia == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_class_is_split_into_full_cells(method: Method) -> None:
    q = quantize(np.full((12, 4), 3.5, np.float32), 5, method=method)
    assert q.counts.min() >= 1 and q.inertia == 0 and len(set(q.medoids)) == 5
    np.testing.assert_array_equal(q.centroids, np.full((5, 4), 3.5))


def test_far_from_the_origin_nothing_is_lost() -> None:
    z = blobs(300, 16, seed=4, spread=0.1)
    near, far = quantize(z, 5), quantize(z + 1000, 5)
    assert far.inertia == pytest.approx(near.inertia, rel=1e-2)
    np.testing.assert_allclose(far.centroids, near.centroids + 1000, atol=1e-3)


def test_beside_a_far_outlier_every_point_still_has_its_nearest_centroid() -> None:
    z = np.random.default_rng(0).standard_normal((1200, 900)).astype(np.float32)
    z[0] *= 1e4
    q = quantize(z, 8)
    squares = np.array([np.square(z - c, dtype=np.float64).sum(axis=1) for c in q.centroids])  # (K, n)
    own = squares[q.assignment, np.arange(len(z))]
    # The outlier moves the mean, so points have |x|² ≈ 6e4, of whose float32 products a tie of 930 is known to 0.02.
    assert (own <= squares.min(axis=0) * (1 + 1e-4)).all()


def test_float16_points_are_taken_at_their_values() -> None:
    z = blobs(150, 8, seed=5).astype(np.float16)
    half, single = quantize(z, 6), quantize(z.astype(np.float32), 6)
    np.testing.assert_array_equal(half.centroids, single.centroids)


def test_bool_and_integer_points_are_numbers() -> None:
    z = np.random.default_rng(0).integers(0, 2, (40, 6))
    np.testing.assert_array_equal(quantize(z, 3).assignment, quantize(z.astype(bool), 3).assignment)


def test_exact_beats_twenty_runs_of_lloyd() -> None:
    z = np.random.default_rng(6).standard_normal((400, 64)).astype(np.float32)
    lloyd = KMeans(20, n_init=20, random_state=0).fit(z).inertia_
    assert quantize(z, 20).inertia < 0.99 * lloyd


def test_more_starts_are_never_worse() -> None:
    z = np.random.default_rng(7).standard_normal((300, 16)).astype(np.float32)
    inertia = [quantize(z, 12, num_starts=s).inertia for s in (1, 2, 4, 8)]
    assert (np.diff(inertia) <= 1e-3).all() and inertia[-1] < inertia[0]


def test_a_class_too_large_for_a_gram_matrix_is_quantised_by_lloyd() -> None:
    z = blobs(9000, 4, seed=8)
    q = quantize(z, 5, num_starts=2)
    assert q.inertia == pytest.approx(KMeans(5, n_init=5, random_state=0).fit(z).inertia_, rel=1e-3)


@settings(max_examples=25)
@given(problem=problems())
def test_balanced_cells_differ_by_one_point_at_most(problem: tuple[np.ndarray, int]) -> None:
    z, k = problem
    q = quantize(z, k, method="balanced")
    assert q.counts.max() - q.counts.min() <= 1


def test_balanced_is_the_better_uniform_barycenter() -> None:
    z = np.concatenate([blobs(90, 8, seed=10), 20 + blobs(10, 8, seed=11)])
    uniform = np.ones(6)
    balanced, exact, stream = (quantize(z, 6, method=m) for m in ("balanced", "exact", "stream"))
    assert w2(z, balanced.centroids, uniform) < 0.9 * w2(z, exact.centroids, uniform)
    assert w2(z, balanced.centroids, uniform) < 0.9 * w2(z, stream.centroids, uniform)


@settings(max_examples=25)
@given(n=st.integers(1, 6), k=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_equal_cells_are_the_cheapest(n: int, k: int, seed: int) -> None:
    k = min(k, n)
    cost = np.random.default_rng(seed).random((n, k))
    cells = equal_cells(cost)
    allowed = [c for c in itertools.product(range(k), repeat=n) if np.ptp(np.bincount(np.array(c), minlength=k)) <= 1]
    cheapest = min(cost[np.arange(n), list(c)].sum() for c in allowed)
    assert np.ptp(np.bincount(cells, minlength=k)) <= 1
    assert cost[np.arange(n), cells].sum() == pytest.approx(cheapest)


def test_divisive_cuts_the_largest_inertia_in_two_by_its_best_two_means() -> None:
    """As bisecting k-means of scikit-learn does with many starts."""
    z = np.concatenate([blobs(40, 3, seed=12), 30 + blobs(30, 3, seed=13), -50 + blobs(20, 3, seed=14, spread=3.0)])
    q = quantize(z, 5, method="divisive", num_starts=20)
    theirs = BisectingKMeans(5, n_init=50, bisecting_strategy="biggest_inertia", random_state=0).fit(z)
    assert adjusted_rand_score(theirs.labels_, q.assignment) == pytest.approx(1)
    assert q.inertia == pytest.approx(theirs.inertia_, rel=1e-4)
    nested = quantize(z, 4, method="divisive", num_starts=20)
    assert all(len(set(nested.assignment[q.assignment == k])) == 1 for k in range(5)), "one more cut, all else the same"


def test_centre_and_margin_are_points_near_the_means_and_at_nine_tenths() -> None:
    z = np.concatenate([np.arange(11.0), 100 + np.arange(21.0), 1000 + np.arange(31.0)])[:, None]
    q = quantize(z, 5, method="centre-margin")
    points = sorted(float(c) for c in q.centroids[:, 0])
    assert points[0] == 5 and 110 in points and 1015 in points, "the means' own points"
    margins = sorted(set(points) - {5, 110, 1015})  # of the two largest cells, at 0.9 of 19 and of 29 other distances
    assert [abs(margins[0] - 110), abs(margins[1] - 1015)] == [9, 14]
    assert sorted(z[q.medoids, 0]) == points, "real images, each for itself"
    assert quantize(z, len(z), method="centre-margin").inertia == 0


def test_stream_includes_leftovers_and_d4m_drops_them() -> None:
    z = blobs(7, 3, seed=9)
    z[6] += 100  # a batch of 4, and a rest of 3, in which it is by chance
    whole, d4m = (
        [quantize(z, 4, method=m, seed=k).centroids.max() for k in range(20)] for m in ("stream", "stream-d4m")
    )
    assert min(whole) > 20
    assert 0 < sum(top < 20 for top in d4m) < 20


@pytest.mark.parametrize("method", ["stream", "stream-d4m"])
def test_streams_start_from_other_points_with_every_seed(method: Method) -> None:
    z = blobs(200, 6, seed=3)
    found = [quantize(z, 5, method=method, seed=k) for k in range(8)]
    assert len({q.centroids.tobytes() for q in found}) == 8
    assert np.ptp([q.inertia for q in found]) > 0.01 * found[0].inertia, "what seeds differ by is the method's spread"


def test_the_stream_is_scikit_learns_over_a_shuffled_class() -> None:
    z, seed = blobs(103, 4, seed=5), np.random.SeedSequence(11)
    model = MiniBatchKMeans(6, random_state=int(seed.generate_state(1)[0]))
    order = canonical_order(z)[np.random.default_rng(seed).permutation(103)]
    for batch in np.split(order[:102], 17):
        model.partial_fit(z[batch])
    found = quantize(z, 6, method="stream-d4m", seed=11)
    want = np.square(z[:, None] - model.cluster_centers_).sum(axis=2).min(axis=1).sum()
    assert found.inertia == pytest.approx(want, rel=1e-4)


def test_clvq_with_inverse_counts_keeps_running_means() -> None:
    z = np.array([[0.0], [2.0], [4.0], [6.0]], np.float32)
    q = quantize(z, 1, method="clvq")
    assert q.centroids[0, 0] == pytest.approx(3.0)
    q = quantize(z, 1, method="clvq", step=(1.0, 0.0))  # γ = 1: the centroid jumps to the last point seen
    assert q.centroids[0, 0] in z


@pytest.mark.parametrize(
    ("z", "k", "options", "words"),
    [
        (np.zeros((3, 2)), 4, {}, "4 points asked for, but the class has 3"),
        (np.zeros((3, 2)), 0, {}, "0 points asked for"),
        (np.zeros((3, 2, 2)), 1, {}, r"got shape \(3, 2, 2\)"),
        (np.array([[1.0], [np.nan]]), 1, {}, "1 of 2 points are not finite"),
        (np.eye(3), 2, {"method": "medians"}, "'medians' is not one of exact"),
        (csr_array(np.eye(3)), 2, {}, r"sparse csr_array; pass them dense, as values\.toarray\(\)"),
        (torch.eye(3, requires_grad=True), 2, {}, r"pass tensor\.detach\(\)\.float\(\)\.cpu\(\)"),
        (torch.eye(3, dtype=torch.bfloat16), 2, {}, r"pass tensor\.detach\(\)\.float\(\)\.cpu\(\)"),
        ([[1.0], [2.0, 3.0]], 1, {}, "points do not convert to an array"),
        (np.eye(3) * 1j, 2, {}, "points are complex128; pass real numbers"),
        (np.array([["a"], ["b"]]), 1, {}, "points have dtype <U1; pass numbers"),
        (1e20 * np.eye(3), 2, {}, r"up to 6\.7e\+19 from their mean, whose square float32 cannot hold: rescale"),
        (1e-30 * np.eye(3), 2, {}, "float32 cannot hold: rescale"),
        (np.eye(3), "5", {}, "num_points must be a whole number, got '5'; pass an int"),
        (np.eye(3), 1.5, {}, "num_points must be a whole number, got 1.5"),
        (np.eye(3), True, {}, "num_points must be a whole number, got True"),
        (np.eye(3), 2, {"seed": -1}, "seed must be at least 0, got -1"),
        (np.eye(3), 2, {"method": "random", "num_starts": 3}, "method random takes no num_starts; leave it out, or"),
        (np.eye(3), 2, {"batch_size": 3}, "method exact takes no batch_size; leave it out, or take method stream or"),
        (np.eye(3), 2, {"step": (1, 1)}, "method exact takes no step; leave it out, or take method clvq"),
        (np.eye(3), 2, {"method": "balanced", "sample_weight": [1, 1, 1]}, "method balanced takes no sample_weight"),
        (np.eye(3), 2, {"sample_weight": [1, 1]}, r"shape \(3,\), one number for each point, got \(2,\)"),
        (np.eye(3), 2, {"sample_weight": [1, -1, 1]}, "finite numbers ≥ 0, got -1.0"),
        (np.eye(3), 2, {"sample_weight": [1, 0, 0]}, "2 points asked for, but 1 have a sample_weight above zero"),
        (np.eye(3), 2, {"num_starts": 0}, "num_starts must be at least 1, got 0"),
        (np.eye(5), 3, {"method": "stream", "batch_size": 2}, "batch_size 2 is smaller than the 3"),
        (np.eye(5), 3, {"method": "clvq", "step": (0.0, 1.0)}, "a > 0"),
    ],
)
def test_bad_input_is_refused_with_its_values(z: Any, k: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        quantize(z, k, **options)
    assert refusal.value.__context__ is None or refusal.value.__suppress_context__  # one error, not a chain


def test_float64_points_keep_their_distances_at_any_offset() -> None:
    z = blobs(300, 16, seed=4, spread=0.1).astype(np.float64)
    near, far = quantize(z, 5), quantize(z + 1e8, 5)
    assert far.inertia == pytest.approx(near.inertia, rel=1e-4)
    assert far.centroids.dtype == np.float64
    np.testing.assert_allclose(far.centroids - 1e8, near.centroids, atol=1e-5)
    assert w2(z + 1e8, far.centroids, far.masses) == pytest.approx(far.w2, rel=1e-5)


def test_float64_points_that_float32_holds_give_its_result() -> None:
    z = blobs(150, 8, seed=5)
    single, double = quantize(z, 6), quantize(z.astype(np.float64), 6)
    np.testing.assert_array_equal(single.assignment, double.assignment)
    np.testing.assert_array_equal(single.centroids, double.centroids.astype(np.float32))
    assert single.inertia == double.inertia


@pytest.mark.parametrize("method", TAKEN_BY["sample_weight"])
def test_weights_of_one_are_no_weights(method: Method) -> None:
    z = blobs(120, 8, seed=6)
    plain, weighted = quantize(z, 7, method=method), quantize(z, 7, method=method, sample_weight=np.ones(120))
    np.testing.assert_allclose(weighted.masses, weighted.counts / 120)
    if method != "random":  # which draws another way
        np.testing.assert_array_equal(weighted.assignment, plain.assignment)


@settings(max_examples=30)
@given(problem=problems(), method=st.sampled_from(TAKEN_BY["sample_weight"]), seed=st.integers(0, 99))
def test_weighted_measures_are_true(problem: tuple[np.ndarray, int], method: Method, seed: int) -> None:
    z, k = problem
    w = np.random.default_rng(seed).exponential(size=len(z)) * (np.random.default_rng(seed + 1).random(len(z)) < 0.8)
    w[:k] += 0.5
    q = quantize(z, k, method=method, sample_weight=w)
    in_cell = q.assignment == np.arange(k)[:, None]  # (K, n)
    np.testing.assert_allclose(q.masses, in_cell @ w / w.sum())
    squares = np.square(z.astype(np.float64) - q.centroids[q.assignment]).sum(axis=1)
    assert q.inertia == pytest.approx(w @ squares, rel=1e-4, abs=1e-6)
    assert q.w2 == pytest.approx(np.sqrt(q.inertia / w.sum()), abs=1e-9)
    assert (np.diff(q.masses) <= 0).all() and q.masses.min() > 0
    if method == "exact":
        means = (in_cell * w) @ z.astype(np.float64) / (in_cell @ w)[:, None]
        np.testing.assert_allclose(q.centroids, means, atol=1e-4)


def test_a_point_of_weight_zero_moves_no_centroid() -> None:
    z = blobs(100, 4, seed=7)
    w = np.ones(100)
    w[90:] = 0
    some, all_of_them = quantize(z[:90], 6), quantize(z, 6, sample_weight=w)
    np.testing.assert_allclose(all_of_them.centroids, some.centroids, atol=1e-5)
    assert all_of_them.inertia == pytest.approx(some.inertia, rel=1e-5)
    assert all_of_them.counts.sum() == 100


def test_a_weighted_class_too_large_for_a_gram_matrix() -> None:
    z = blobs(9000, 4, seed=8)
    w = np.random.default_rng(0).exponential(size=9000)
    plain = KMeans(5, n_init=5, random_state=0).fit(z, sample_weight=w).inertia_
    assert quantize(z, 5, num_starts=2, sample_weight=w).inertia == pytest.approx(plain, rel=1e-3)


def test_the_result_is_frozen() -> None:
    q = quantize(blobs(10, 2, seed=0), 2)
    assert isinstance(q, Quantization)
    with pytest.raises(AttributeError):
        q.w2 = 0.0  # type: ignore[misc]


def test_importing_the_core_stays_light() -> None:
    code = "import sys, ddoq_core; print({'torch', 'prefect', 'zarr', 'dask', 'ot'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
