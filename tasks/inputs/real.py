"""Real images for the stages that look at pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.files import canonical_json
from storage.index import Index
from storage.sources import Location, RefusedImage, Source, SourceError
from tasks.inputs.sources import open_data
from tasks.recipe.settings import DataConfig, ImageConfig

AHEAD_IMAGES = 64  # decoded beyond the batch that is asked for, which bounds memory
MAX_THREADS = 16
BATCH_IMAGES = 256  # classified or written together


def source_of(shard: Artifact) -> Source:
    """The source that a finished shard artifact has listed; the same object for every call in a process."""
    return _source(shard.path, canonical_json(shard.config), shard.content())


@lru_cache(maxsize=2)
def _source(folder: Path, config: bytes, content: str) -> Source:
    return open_data(DataConfig.model_validate_json(config), folder / "unpacked")


def cut(rows: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """An array (n, …) in batches of a size, the last one of what is left."""
    return [rows[k : k + size] for k in range(0, len(rows), size)]


def read_batches(
    shard: Artifact,
    index: Index,
    batches: Iterable[NDArray[np.int64]],
    images: ImageConfig,
    center_crop: float | None = None,
    reduced: bool = False,
) -> Iterator[NDArray[np.uint8]]:
    """Images (B, S, S, 3) uint8 of each batch of rows of the index, in order; threads read ahead of the reader.

    center_crop  see ddoq_core.images.preprocess
    reduced      decode JPEG files no larger than images.size_px needs
    Raises SourceError for an image that can no longer be read.
    """
    from ddoq_core.images import preprocess

    source = source_of(shard)

    def read(location: Location) -> NDArray[np.uint8]:
        try:
            image = source.open(location, images.size_px if reduced else None)
            return preprocess(image, images.size_px, images.resize, center_crop)
        except RefusedImage as error:
            raise SourceError(
                f"image {error.path} can no longer be read ({error.reason}): repair or remove it"
            ) from error

    pool = ThreadPoolExecutor(min(MAX_THREADS, source.num_readers))
    ahead: deque[list[Future[NDArray[np.uint8]]]] = deque()
    try:
        for rows in batches:
            ahead.append([pool.submit(read, location) for location in index.locations(rows)])
            while ahead and sum(map(len, ahead)) >= AHEAD_IMAGES + len(ahead[0]):
                yield np.stack([future.result() for future in ahead.popleft()])
        while ahead:
            yield np.stack([future.result() for future in ahead.popleft()])
    finally:
        pool.shutdown(cancel_futures=True)


def read_images(shard: Artifact, index: Index, rows: NDArray[np.int64], images: ImageConfig) -> NDArray[np.uint8]:
    """Images (n, S, S, 3) uint8 of rows of the index. Raises SourceError for one that can no longer be read."""
    found = np.empty((len(rows), images.size_px, images.size_px, 3), np.uint8)
    for k, batch in enumerate(read_batches(shard, index, cut(rows, AHEAD_IMAGES), images)):
        found[k * AHEAD_IMAGES : k * AHEAD_IMAGES + len(batch)] = batch
    return found


def read_split(
    shard: Artifact, index: Index, split: str, images: ImageConfig
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images (n, S, S, 3) uint8 and labels (n,) of a split."""
    rows = index.rows(split)
    return read_images(shard, index, rows, images), index.labels(rows)


def classify_split(
    model: Any, shard: Artifact, index: Index, split: str, images: ImageConfig, center_crop: float | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits (n, C) of a classifier for all images of a split, and their labels (n,). Few are in memory at a time."""
    from ddoq_core.train.accuracy import predict

    rows = index.rows(split)
    pictures = read_batches(shard, index, cut(rows, BATCH_IMAGES), images, center_crop)
    return np.concatenate([predict(model, batch) for batch in pictures]), index.labels(rows)
