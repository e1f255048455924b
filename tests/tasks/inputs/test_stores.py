"""The distilled set that the artifacts make up."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

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


def test_of_mosaics_the_tiles_are_its_pictures_each_with_its_own_weight(tmp_path: Path) -> None:
    decode = decode_of(shard_of(tmp_path, CLASSES), CLASSES, 2, 8, mosaic=2)
    found = distilled_set(decode, "mass")
    assert found.images.shape == (16, 8, 8, 3)
    assert found.labels.tolist() == [0] * 8 + [1] * 8
    assert found.centroids.tolist() == [*range(8), *range(8)]
    np.testing.assert_allclose(found.weights, [k / 4.5 for k in range(1, 9)] * 2)  # counts of 1 to 8, of 2 to 16
    for k, name in enumerate(CLASSES):
        mosaics = images_of(decode).read_class(name)["images"]
        for tile in range(8):
            top, left = 4 * (tile % 4 // 2), 4 * (tile % 2)
            own, seen = mosaics[tile // 4, top : top + 4, left : left + 4], found.images[8 * k + tile]
            np.testing.assert_array_equal(seen[::7, ::7], own[::3, ::3], err_msg="the corners")
            enlarged = torch.from_numpy(own).permute(2, 0, 1)[None].float()
            enlarged = torch.nn.functional.interpolate(enlarged, scale_factor=2, mode="bilinear")[0].permute(1, 2, 0)
            assert np.abs(seen - enlarged.numpy()).max() <= 1, "whole numbers, rounded row by row and column by column"
    second = distilled_set(decode, "mass", CLASSES[1:])
    np.testing.assert_array_equal(second.images, found.images[8:])


def test_the_distilled_set_is_in_memory_once(tmp_path: Path) -> None:
    names = [f"c{k:02d}" for k in range(40)]
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
