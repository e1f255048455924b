"""The distilled set that the artifacts make up."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ddoq_core import class_weights
from storage import memory
from storage.artifact import Artifact
from tasks.inputs.stores import distilled_set, images_of
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
    np.testing.assert_array_equal(distilled_set(decode, "mass", 1).images, pictures[0])


def test_the_distilled_set_is_in_memory_once(tmp_path: Path) -> None:
    names = [f"c{k:02d}" for k in range(20)]
    decode = decode_of(shard_of(tmp_path, names), names, 10, 64)
    distilled_set(decode, "sqrt", 1)  # what is loaded at the first use is no part of the set
    tracemalloc.start()
    try:
        found = distilled_set(decode, "sqrt")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.images.nbytes <= peak < 1.3 * found.images.nbytes
