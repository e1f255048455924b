"""The scikit-learn face of the quantiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.utils.estimator_checks import parametrize_with_checks

from ddoq_core import quantize
from ddoq_core.cluster.estimator import Quantizer


@parametrize_with_checks([Quantizer()])  # type: ignore[untyped-decorator]
def test_scikit_learn_accepts_the_estimator(estimator: Quantizer, check: Any) -> None:
    check(estimator)


def test_the_estimator_is_the_function() -> None:
    z = load_digits().data[:300].astype(np.float32)
    model, q = Quantizer(12, n_init=3, random_state=4).fit(z), quantize(z, 12, num_starts=3, seed=4)
    np.testing.assert_array_equal(model.cluster_centers_, q.centroids)
    np.testing.assert_array_equal(model.labels_, q.assignment)
    np.testing.assert_array_equal(model.predict(z), q.assignment)
    assert (model.inertia_, model.w2_) == (q.inertia, q.w2)


def test_fewer_samples_than_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="3 sample"):
        Quantizer(8).fit(np.eye(3))
