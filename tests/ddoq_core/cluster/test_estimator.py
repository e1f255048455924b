"""The scikit-learn face of the quantiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ddoq_core import Quantizer, quantize
from ddoq_core.cluster.checks import METHODS, TAKEN_BY

NO_WEIGHTS = "this method has no weighted form, and refuses weights rather than ignore them"
NOT_REPEATED = "one pass over other batches, or another draw: a weight is not a repetition there, as in MiniBatchKMeans"


def expected_failures(estimator: Quantizer) -> dict[str, str]:
    """Checks that a method fails by its definition, and why."""
    repeated = {"check_sample_weight_equivalence_on_dense_data": NOT_REPEATED}
    if estimator.method not in TAKEN_BY["sample_weight"]:
        names = [
            f"sample_weights_{name}" for name in ("pandas_series", "not_an_array", "list", "shape", "not_overwritten")
        ]
        names += ["all_zero_sample_weights_error", "sample_weight_equivalence_on_dense_data"]
        return {f"check_{name}": NO_WEIGHTS for name in names}
    return repeated if estimator.method != "exact" else {}


@parametrize_with_checks([Quantizer(method=m) for m in METHODS], expected_failed_checks=expected_failures)  # type: ignore[untyped-decorator]
def test_scikit_learn_accepts_the_estimator(estimator: Quantizer, check: Any) -> None:
    check(estimator)


def digits(n: int = 300) -> np.ndarray:
    return load_digits().data[:n].astype(np.float32)


def test_the_estimator_is_the_function() -> None:
    z = digits()
    model, q = Quantizer(12, n_init=3, random_state=4).fit(z), quantize(z, 12, num_starts=3, seed=4)
    np.testing.assert_array_equal(model.cluster_centers_, q.centroids)
    np.testing.assert_array_equal(model.labels_, q.assignment)
    np.testing.assert_array_equal(model.predict(z), q.assignment)
    np.testing.assert_array_equal(model.masses_, q.masses)
    assert (model.inertia_, model.w2_) == (q.inertia, q.w2)


def test_transform_gives_distances_and_score_the_inertia() -> None:
    z = digits()
    model = Quantizer(12).fit(z)
    distances = model.transform(z)
    np.testing.assert_allclose(distances, np.linalg.norm(z[:, None] - model.cluster_centers_, axis=2), rtol=1e-4)
    np.testing.assert_array_equal(distances.argmin(axis=1), model.predict(z))
    assert model.score(z) == pytest.approx(-model.inertia_)
    assert model.score(z, sample_weight=np.full(300, 2.0)) == pytest.approx(-2 * model.inertia_)
    assert list(model.get_feature_names_out())[:2] == ["quantizer0", "quantizer1"]


def test_float64_far_from_the_origin_keeps_centres_distances_and_labels() -> None:
    rng = np.random.default_rng(0)
    z = np.repeat(9 * rng.standard_normal((5, 8)), [50, 40, 30, 20, 10], axis=0) + rng.standard_normal((150, 8))
    near, far = Quantizer(5).fit(z), Quantizer(5).fit(z + 1e8)
    assert near.cluster_centers_.dtype == far.cluster_centers_.dtype == np.float64
    assert Quantizer(5).fit(z.astype(np.float32)).cluster_centers_.dtype == np.float32
    assert far.inertia_ == pytest.approx(near.inertia_, rel=1e-5)
    np.testing.assert_allclose(far.cluster_centers_ - 1e8, near.cluster_centers_, atol=1e-5)
    np.testing.assert_allclose(far.transform(z + 1e8), near.transform(z), atol=1e-5)
    np.testing.assert_array_equal(far.predict(z + 1e8), near.labels_)


def test_weights_are_repetitions() -> None:
    z, w = digits(120), np.random.default_rng(1).integers(0, 4, 120)
    weighted, repeated = Quantizer(4).fit(z, sample_weight=w), Quantizer(4).fit(np.repeat(z, w, axis=0))
    assert weighted.inertia_ == pytest.approx(repeated.inertia_, rel=1e-5)
    np.testing.assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, atol=1e-4)
    np.testing.assert_allclose(weighted.masses_, repeated.masses_)


def test_a_grid_search_finds_more_clusters_better() -> None:
    pipeline = make_pipeline(StandardScaler(), Quantizer(n_init=2))
    search = GridSearchCV(
        pipeline, {"quantizer__n_clusters": [2, 20], "quantizer__method": ["exact", "balanced"]}, cv=2
    )
    assert search.fit(digits()).best_params_["quantizer__n_clusters"] == 20


def test_parameters_survive_a_clone() -> None:
    model = Quantizer(3, method="stream", random_state=7)
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(n_clusters=4).fit(digits()).cluster_centers_.shape == (4, 64)


def test_the_random_state_is_an_int_none_or_a_generator() -> None:
    z = digits()
    state = np.random.RandomState(0)
    first, second = (Quantizer(9, method="random", random_state=state).fit(z).medoid_indices_ for _ in range(2))
    again = Quantizer(9, method="random", random_state=np.random.RandomState(0)).fit(z).medoid_indices_
    assert set(first) != set(second) and set(first) == set(again)
    drawn = [set(Quantizer(9, method="random", random_state=None).fit(z).medoid_indices_) for _ in range(2)]
    assert drawn[0] != drawn[1]


def test_fewer_samples_than_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="3 sample"):
        Quantizer(8).fit(np.eye(3))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Quantizer("5"), "n_clusters must be a whole number, got '5'"),  # type: ignore[arg-type]
        (Quantizer(2, method="random", n_init=3), "method random takes no num_starts"),
        (Quantizer(0), "n_clusters must be at least 1, got 0"),
    ],
)
def test_bad_parameters_are_refused_at_fit(model: Quantizer, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model.fit(digits(20))


@pytest.mark.parametrize("method", ["clvq", "balanced"])
def test_methods_without_a_weighted_form_refuse_weights(method: str) -> None:
    with pytest.raises(ValueError, match=f"method {method} takes no sample_weight"):
        Quantizer(2, method=method).fit(digits(20), sample_weight=np.ones(20))  # type: ignore[arg-type]
