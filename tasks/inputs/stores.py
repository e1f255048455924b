"""The distilled set as its students see it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.index import Index
from tasks.cluster import prototypes_of
from tasks.decode import images_of
from tasks.recipe.settings import Weighting


def distilled_set(
    decoded: Artifact, index: Index, weights: Weighting, num_classes: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64]]:
    """Images (N, S, S, 3) uint8, labels (N,) and training weights (N,) of all classes, or the first, in label order.

    Several pictures of one centroid each have its weight.
    """
    from ddoq_core import class_weights

    names = index.classes[:num_classes]
    found = [images_of(decoded).read_class(name) for name in names]
    counts = [prototypes_of(decoded.parents["cluster"]).read_class(name)["counts"] for name in names]
    w = [class_weights(c, weights)[part["centroid"]] for c, part in zip(counts, found, strict=True)]
    labels = np.repeat(np.arange(len(found)), [len(part["images"]) for part in found])
    return np.concatenate([part["images"] for part in found]), labels, np.concatenate(w)
