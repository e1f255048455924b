"""The distilled set that the artifacts make up."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ddoq_core import class_weights
from storage import memory
from storage.artifact import Artifact
from tasks.inputs.stores import MOST_CLASSES, distilled_set, images_of, index_of, some_classes
from tests.tasks.conftest import CLASSES, IPC, decode_of, shard_of


@pytest.mark.parametrize("share", [4, 1 << 50])
def test_the_pictures_of_all_classes_stand_in_the_order_of_labels(
    share: int, parents: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "ARRAY_SHARE", share)
    decode = parents["decode"]
    found = distilled_set(decode, "mass")
    pictures = [images_of(decode).read_class(name)["images"] for name in CLASSES]
    np.testing.assert_array_equal(found.images, np.concatenate(pictures))
    assert isinstance(found.images, np.memmap) == (share > 4)
    assert found.labels.tolist() == [0] * IPC + [1] * IPC
    assert found.centroids.tolist() == [*range(IPC), *range(IPC)]
    np.testing.assert_array_equal(found.weights[IPC:], class_weights(2 * np.arange(1, IPC + 1), "mass"))
    second = distilled_set(decode, "mass", CLASSES[1:])
    np.testing.assert_array_equal(second.images, pictures[1])
    np.testing.assert_array_equal(second.labels, found.labels[IPC:])
    np.testing.assert_array_equal(second.weights, found.weights[IPC:])


def test_the_distilled_set_is_in_memory_once(tmp_path: Path) -> None:
    names = [f"c{k:02d}" for k in range(20)]
    decode = decode_of(shard_of(tmp_path, names), names, 10, 64)
    distilled_set(decode, "sqrt", names[:1])  # what is loaded at the first use is no part of the set
    tracemalloc.start()
    try:
        found = distilled_set(decode, "sqrt")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.images.nbytes <= peak < 1.3 * found.images.nbytes


def test_many_classes_are_stood_for_by_some_from_all_over(tmp_path: Path) -> None:
    names = [f"c{k:03d}" for k in range(200)]
    index = index_of(decode_of(shard_of(tmp_path, names, 1), names, 1, 4))
    drawn = some_classes(index)
    assert len(drawn) == len(set(drawn)) == MOST_CLASSES and list(drawn) == sorted(drawn)
    assert 60 < np.mean([names.index(name) for name in drawn]) < 140, "the first of ImageNet are fish and birds"
    few = names[:MOST_CLASSES]
    assert some_classes(index_of(decode_of(shard_of(tmp_path / "few", few, 1), few, 1, 4))) == tuple(few)
