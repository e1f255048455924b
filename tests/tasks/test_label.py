"""Stored labels: whole, resumed at the first missing block, and what is done about a damaged one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ddoq_core.train.protocol import Augmentation, Protocol
from storage.artifact import Artifact
from tasks import cluster, decode, label, train
from tasks.inputs import labels
from tests.tasks.conftest import Pipeline, complete

PROTOCOL = Protocol(
    labels="stored",
    num_epochs=7,
    batch_size=4,
    augmentation=Augmentation(shift_px=1, resized_crop=(0.5, 1.0), flip=True, cutmix=True),
)


@pytest.fixture
def artifact(parents: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch) -> Artifact:
    monkeypatch.setattr(labels, "BLOCK_EPOCHS", 3)
    root = parents["shard"].root
    artifact = Artifact(root, "label", label.VERSION, label.identity(PROTOCOL, "sqrt", 0), parents)
    label.label.fn(artifact, PROTOCOL, "sqrt", 0)
    return artifact


def test_every_epoch_is_there(artifact: Artifact) -> None:
    assert artifact.is_done()
    assert list(artifact.record().units) == ["epochs-0000-0002", "epochs-0003-0005", "epochs-0006-0006"]
    read_step = labels.step_reader(artifact, 10, 2)
    orders = []
    for epoch in range(7):
        order: list[int] = []
        for k, size in enumerate((4, 4, 2)):
            arrays = read_step(epoch, k)
            shapes = {name: array.shape for name, array in arrays.items()}
            per_picture = {"rows": (size,), "flip": (size,), "partner": (size,), "shift": (size, 2), "crop": (size, 4)}
            assert shapes == {**per_picture, "box": (4,), "logits": (size, 2)}
            assert arrays["logits"].dtype == np.float16 and np.isfinite(arrays["logits"]).all()
            order += arrays["rows"].tolist()
        assert sorted(order) == list(range(10))
        orders.append(tuple(order))
    assert len(set(orders)) > 5


def test_what_is_there_is_not_made_again(artifact: Artifact) -> None:
    first, last = artifact.mark("epochs-0000-0002"), artifact.mark("epochs-0006-0006")
    artifact.forget("epochs-0003-0005")
    assert not artifact.is_done()
    times = {p: p.stat().st_mtime_ns for p in artifact.path.rglob("*") if p.is_file()}
    label.label.fn(artifact, PROTOCOL, "sqrt", 0)
    assert artifact.is_done()
    again = {p for p in artifact.path.rglob("*") if p.is_file() and times.get(p) != p.stat().st_mtime_ns}
    parts = ("labels.zarr/epochs-0003-0005", "labels.zarr/zarr.json", "marks/epochs-0003-0005.json", "record.json")
    assert again and all(p.relative_to(artifact.path).as_posix().startswith(parts) for p in again)
    assert (artifact.mark("epochs-0000-0002"), artifact.mark("epochs-0006-0006")) == (first, last)


def test_a_block_made_again_is_the_same(artifact: Artifact) -> None:
    before = artifact.content()
    artifact.forget()
    label.label.fn(artifact, PROTOCOL, "sqrt", 0)
    assert artifact.content() == before


def test_a_flipped_bit_is_not_read_as_a_label(artifact: Artifact) -> None:
    chunk = next(p for p in (artifact.path / "labels.zarr/epochs-0000-0002/logits/c").rglob("*") if p.is_file())
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(RuntimeError):
        labels.step_reader(artifact, 10, 2)(0, 0)
    label.label.fn(artifact, PROTOCOL, "sqrt", 0)
    assert artifact.is_done(deep=True)


def test_the_facts_count_the_bytes(artifact: Artifact) -> None:
    mark = artifact.mark("epochs-0000-0002")
    assert mark is not None and mark.facts["bytes"]["logits"] == 3 * 10 * 2 * 2
    files = [p for p in (artifact.path / labels.LABELS).glob("epochs-*/**/*") if p.is_file()]
    assert artifact.record().facts["bytes_on_disk"] == sum(p.stat().st_size for p in files)


def test_weights_matter_only_where_they_draw() -> None:
    sampling = replace(PROTOCOL, weights_in="sampling")
    assert label.identity(PROTOCOL, "sqrt", 0) == label.identity(PROTOCOL, "mass", 0)
    assert label.identity(sampling, "sqrt", 0) != label.identity(sampling, "mass", 0)


def test_stored_labels_of_mosaics_are_those_of_their_tiles(pipeline: Pipeline) -> None:
    changes = {"methods": {"tiled": {"decode": {"mosaic": 2}}}, "train": {"protocol": "quick", "labels": "stored"}}
    sizes = {"train.num_epochs": 4, "train.batch_size": 16, "train.architectures": ["convnet-1-8"]}
    recipe = pipeline.recipe.with_changes(changes).with_changes(sizes)
    points = complete(cluster.plan(recipe, "tiled", 0, pipeline.encode))
    pictures = complete(decode.plan(recipe, "tiled", 0, points, pipeline.models))
    work = label.plan(recipe, "tiled", 0, pipeline.shard, {"decode": pictures, "teacher": pipeline.teacher})
    stored = complete(work)
    assert list(stored.record().units) == ["epochs-0000-0000"] and work.units == 1
    rows = labels.labels_of(stored).read_array("epochs-0000-0000", "rows")
    assert sorted(rows.ravel().tolist()) == list(range(120)), "12 tiles of 10 classes"
    labelled = {"decode": pictures, "label": stored}
    student = complete(train.plan(recipe, "tiled", "convnet-1-8", 0, pipeline.shard, labelled))
    assert len(student.record().facts["losses"]) == 8, "as many steps as 4 epochs of 30 pictures"


def test_labels_of_imagenet_fit_into_memory_block_by_block() -> None:
    assert [len(b) for b in labels.label_blocks(300, 10_000, 1000).values()][:2] == [6, 6]
    assert {len(b) for b in labels.label_blocks(300, 200_000, 1000).values()} == {1}
