"""The quantiser as a scikit-learn estimator, for pipelines and grid searches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ddoq_core.cluster import partition
from ddoq_core.cluster.quantize import Method, quantize


class Quantizer(ClusterMixin, BaseEstimator):
    """`quantize` with scikit-learn's names: parameters as of KMeans, and `method` as of `quantize`.

    After `fit`: cluster_centers_ (K, d) float32, labels_ (n,) int32, counts_ (K,) int64, inertia_, w2_, and
    medoid_indices_ (K,). Works in float32, whatever the points come in.
    """

    def __init__(
        self, n_clusters: int = 8, *, method: Method = "exact", n_init: int = 10, random_state: int = 0
    ) -> None:
        self.n_clusters = n_clusters
        self.method = method
        self.n_init = n_init
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> Quantizer:  # noqa: N803
        """Quantise X (n, d); y is ignored. Raises ValueError where n < n_clusters."""
        points = validate_data(self, X, dtype=np.float32, ensure_min_samples=self.n_clusters)
        q = quantize(points, self.n_clusters, method=self.method, seed=self.random_state, num_starts=self.n_init)
        self.cluster_centers_, self.labels_, self.counts_ = q.centroids, q.assignment, q.counts
        self.inertia_, self.w2_, self.medoid_indices_ = q.inertia, q.w2, q.medoids
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:  # noqa: N803
        """The nearest centroid (m,) of each row of X (m, d)."""
        check_is_fitted(self)
        points = validate_data(self, X, dtype=np.float32, reset=False)
        offset = self.cluster_centers_.mean(axis=0)
        nearest, _ = partition.assign(points - offset, self.cluster_centers_ - offset)
        return nearest.astype(np.int32)
