"""Stored labels on disk: in which units and chunks they are written, and how a step of them is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from ddoq_core.train.protocol import num_batches
from storage.artifact import Artifact
from storage.zarr_store import ClassStore
from tasks.inputs import meanings

LABELS = "labels.zarr"
BLOCK_EPOCHS, BLOCK_BYTES = 50, 128 << 20  # a unit of labels holds as many epochs as fit, at least one
CHUNK_BYTES = 1 << 20  # a chunk holds as many epochs as fit, of a larger epoch as many batches, at least one
PER_BATCH = "box"  # the array with a row for each batch, others have one for each picture

Arrays = dict[str, NDArray[Any]]


def labels_of(label: Artifact) -> ClassStore:
    """The store of a label artifact, a unit for each block of epochs."""
    return ClassStore(label.path / LABELS, label.check, meanings.LABELS)


def label_blocks(num_epochs: int, num_images: int, num_classes: int) -> dict[str, range]:
    """Units of stored labels, e.g. "epochs-0000-0024", each with its epochs."""
    size = max(1, min(BLOCK_EPOCHS, BLOCK_BYTES // (2 * num_images * num_classes)))
    blocks = [range(first, min(first + size, num_epochs)) for first in range(0, num_epochs, size)]
    return {f"epochs-{block[0]:04d}-{block[-1]:04d}": block for block in blocks}


def write_labels(label: Artifact, unit: str, arrays: Mapping[str, NDArray[Any]], batch_size: int) -> list[Any]:
    """Write a block's arrays (epochs, n, ...), for PER_BATCH (epochs, batches, ...). Returns what holds them."""
    num_epochs, num_images = arrays["rows"].shape
    epoch_bytes = max(array.nbytes for array in arrays.values()) // num_epochs
    epochs = min(max(1, CHUNK_BYTES // epoch_bytes), num_epochs)
    batches = max(1, CHUNK_BYTES * num_images // (epoch_bytes * batch_size))
    chunks = {
        name: (epochs, min(batches * (1 if name == PER_BATCH else batch_size), array.shape[1]), *array.shape[2:])
        for name, array in arrays.items()
    }
    return labels_of(label).write_class(unit, arrays, chunks)


def step_reader(label: Artifact, num_images: int, num_classes: int) -> Callable[[int, int], Arrays]:
    """Reads what the k-th step of an epoch sees, as ddoq_core.train.stored_labels.pack_epoch made it: arrays (B, ...),
    and the box (4,). Holds one chunk of each array in memory."""
    store, batch_size = labels_of(label), label.config["batch_size"]
    blocks = list(label_blocks(label.config["num_epochs"], num_images, num_classes).items())
    per_epoch = num_batches(num_images, batch_size)
    open_block = lru_cache(maxsize=1)(store.open_class)

    @lru_cache(maxsize=1)
    def read_chunks(unit: str, epoch: int, num_epochs: int, first: int, end: int) -> Arrays:
        epochs, batches = slice(epoch, epoch + num_epochs), slice(first, end)
        pictures = slice(first * batch_size, num_images if end == per_epoch else end * batch_size)
        return {
            name: store.read_part(unit, array, (epochs, batches if name == PER_BATCH else pictures))
            for name, array in open_block(unit).items()
        }

    def read_step(epoch: int, k: int) -> Arrays:
        unit, block = blocks[epoch // len(blocks[0][1])]
        num_epochs, num_pictures = open_block(unit)["rows"].chunks
        together = -(-num_pictures // batch_size)  # batches of a chunk
        first, (before, e) = k // together * together, divmod(epoch - block[0], num_epochs)
        found = read_chunks(unit, before * num_epochs, num_epochs, first, min(first + together, per_epoch))
        start = (k - first) * batch_size
        pictures = slice(start, None if k == per_epoch - 1 else start + batch_size)
        return {name: array[e, k - first if name == PER_BATCH else pictures] for name, array in found.items()}

    return read_step
