"""The distilled set, as its students see it and as it is handed out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Distilled:
    """N pictures, or tiles of mosaics as students see them, of all classes or of some, in label order, several of one
    centroid each with its weight.

    images     (N, S, S, 3) uint8
    labels     (N,) int64
    centroids  (N,) int64, the number of the prototype within its class
    weights    (N,) float64, of a class 1 in the mean
    classes    names of all classes in label order
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    centroids: NDArray[np.int64]
    weights: NDArray[np.float64]
    classes: tuple[str, ...]
