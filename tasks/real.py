"""Real images for the stages that look at pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.index import Index
from storage.sources import SourceError, open_source
from tasks.config import DataConfig, ImageConfig


def read_images(shard: Artifact, index: Index, rows: NDArray[np.int64], images: ImageConfig) -> NDArray[np.uint8]:
    """Images (n, S, S, 3) uint8 of rows of the index. Raises SourceError for one that cannot be read."""
    from ddoq_core.images import preprocess

    data = DataConfig.model_validate(shard.config)
    source = open_source(data.source, data.path)
    found = np.empty((len(rows), images.size_px, images.size_px, 3), np.uint8)
    for k, path in enumerate(index.paths(rows)):
        try:
            found[k] = preprocess(source.open(path), images.size_px, images.resize)
        except OSError as error:
            raise SourceError(f"image {path} of {data.path} cannot be read ({error}): repair or remove it") from error
    return found


def read_split(
    shard: Artifact, index: Index, split: str, images: ImageConfig
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images (n, S, S, 3) uint8 and labels (n,) of a split."""
    rows = index.rows(split)
    return read_images(shard, index, rows, images), index.labels(rows)
