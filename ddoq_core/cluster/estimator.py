"""The quantiser as a scikit-learn estimator, for pipelines and grid searches."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ddoq_core.cluster import partition
from ddoq_core.cluster.checks import Method, check_weights, check_whole
from ddoq_core.cluster.partition import Index, Points
from ddoq_core.cluster.quantize import quantize


class Quantizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """`quantize` with scikit-learn's names: parameters as of KMeans, and `method` as of `quantize`.

    n_init        num_starts of the methods that take it; None means 10 there
    random_state  an int, the seed of `quantize`; None or a RandomState draws one anew at every fit
    After `fit`: cluster_centers_ (K, d), labels_ (n,) int32, counts_ (K,) int64, masses_ (K,), inertia_, w2_, and
    medoid_indices_ (K,). Float32 points have float32 centres, all others float64 ones, as of KMeans; distances are
    float32's, about the mean.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        method: Method = "exact",
        n_init: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.method = method
        self.n_init = n_init
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Quantizer:  # noqa: N803
        """Quantise X (n, d), weighted by sample_weight (n,) ≥ 0 if given; y is ignored.

        Raises ValueError where n < n_clusters, and for weights with methods clvq and balanced.
        """
        check_whole("n_clusters", self.n_clusters, least=1)
        points = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=self.n_clusters)
        q = quantize(
            points,
            self.n_clusters,
            method=self.method,
            seed=self._seed(),
            num_starts=self.n_init,
            sample_weight=sample_weight,
        )
        self.cluster_centers_, self.labels_ = q.centroids, q.assignment
        self.counts_, self.masses_, self.medoid_indices_ = q.counts, q.masses, q.medoids
        self.inertia_, self.w2_ = q.inertia, q.w2
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:  # noqa: N803
        """The nearest centre (m,) of each row of X (m, d)."""
        return self._nearest(X)[0].astype(np.int32)

    def transform(self, X: ArrayLike) -> NDArray[np.floating]:  # noqa: N803
        """Distances (m, K) from each row of X (m, d) to the centres, in their dtype."""
        squares = partition.squared_distances(*self._centred(X))
        return np.sqrt(squares).astype(self.cluster_centers_.dtype)

    def score(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:  # noqa: N803
        """−Σ_i w_i min_k |x_i − c_k|² over the rows of X (m, d): more is better. y is ignored."""
        _, squares = self._nearest(X)  # (m,)
        w = np.ones(len(squares)) if sample_weight is None else check_weights(sample_weight, len(squares), 1)
        return -float(w @ squares)

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def _seed(self) -> int:
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _nearest(self, x: ArrayLike) -> tuple[Index, Points]:
        return partition.assign(*self._centred(x))

    def _centred(self, x: ArrayLike) -> tuple[Points, Points]:
        """Points (m, d) and centres (K, d) about the centres' mean, where float32 is enough."""
        check_is_fitted(self)
        points = validate_data(self, x, dtype=[np.float64, np.float32], reset=False)
        offset = self.cluster_centers_.mean(axis=0)
        return (points - offset).astype(np.float32), (self.cluster_centers_ - offset).astype(np.float32)
