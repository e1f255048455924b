"""Real images in batches: in order, read ahead but not too far, and an image that is gone is named."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddoq_core.train.networks import ClassifierSpec, build_classifier
from storage.artifact import Artifact
from storage.index import Index
from storage.sources import FolderSource, Location, SourceError
from tasks import shard
from tasks.inputs import real
from tasks.inputs.data import shard_artifact
from tasks.inputs.stores import indexed
from tasks.recipe.settings import DataConfig, ImageConfig

IMAGES = ImageConfig(size_px=4)
TRAINED, HELD_OUT = 200, 3


@pytest.fixture
def data(tmp_path: Path) -> tuple[Artifact, Index]:
    """Pictures of one colour each, by which they can be told apart."""
    for split, count in (("train", TRAINED), ("val", HELD_OUT)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                Image.new("RGB", (6, 4), (k, 100 * (name == "dog"), 200 * (split == "val"))).save(
                    folder / f"{k:03d}.png"
                )
    config = DataConfig(source="folder", path=str(tmp_path / "images"))
    artifact = shard_artifact(tmp_path / "runs", config)
    shard.shard.fn(artifact, config)
    return indexed(artifact)


def test_batches_come_in_their_order(data: tuple[Artifact, Index]) -> None:
    artifact, index = data
    rows = np.random.default_rng(0).permutation(index.rows("train", "dog"))
    batches = list(real.read_batches(artifact, index, np.split(rows, [7, 90, 91]), IMAGES))
    assert [batch.shape for batch in batches] == [(n, 4, 4, 3) for n in (7, 83, 1, 109)]
    first = index.rows("train", "dog")[0]
    np.testing.assert_array_equal(np.concatenate(batches)[:, 0, 0, 0], rows - first)
    np.testing.assert_array_equal(np.concatenate(batches), real.read_images(artifact, index, rows, IMAGES))


def test_threads_read_ahead_of_a_slow_reader_but_not_the_whole_set(
    data: tuple[Artifact, Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, index = data
    opened: list[Location] = []
    read = FolderSource.open
    monkeypatch.setattr(FolderSource, "open", lambda self, at, _: opened.append(at) or read(self, at))
    rows = index.rows("train")
    batches = real.read_batches(artifact, index, (rows[k : k + 4] for k in range(0, len(rows), 4)), IMAGES)
    for taken in (4, 8):
        next(batches)
        limit = time.monotonic() + 10
        while len(opened) < taken + real.AHEAD_IMAGES and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(0.1)
        assert len(opened) == taken + real.AHEAD_IMAGES
    batches.close()  # type: ignore[attr-defined]
    assert len(opened) == 8 + real.AHEAD_IMAGES, "nothing is read for nobody"


def test_an_image_that_is_gone_is_named(data: tuple[Artifact, Index], tmp_path: Path) -> None:
    artifact, index = data
    (tmp_path / "images" / "train" / "cat" / "150.png").unlink()
    with pytest.raises(SourceError, match=r"image train/cat/150\.png can no longer be read \(No such file"):
        real.read_images(artifact, index, index.rows("train", "cat"), IMAGES)


def test_a_split_is_classified_batch_by_batch(data: tuple[Artifact, Index], monkeypatch: pytest.MonkeyPatch) -> None:
    artifact, index = data
    model = build_classifier(ClassifierSpec("convnet-1-4", 2, 4), seed=0).eval()
    whole, labels = real.classify_split(model, artifact, index, "val", IMAGES)
    assert labels.tolist() == [0] * HELD_OUT + [1] * HELD_OUT
    monkeypatch.setattr(real, "BATCH_IMAGES", 4)
    parts, _ = real.classify_split(model, artifact, index, "val", IMAGES)
    np.testing.assert_allclose(parts, whole, atol=1e-5)
