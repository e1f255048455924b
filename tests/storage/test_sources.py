"""Where real images come from, and what a source says about files that are missing or broken."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.sources import DigitsSource, FolderSource, SourceError, content_hash, fingerprint, open_source
from tasks.config import DataConfig, ImageConfig
from tasks.real import read_images
from tasks.shard import check_counts, indexed, shard_artifact, split_of
from tasks.shard import shard as shard_task


def make_image(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_folder(root: Path, splits: tuple[str, ...] = ("",), classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for k, (split, name, i) in enumerate((s, c, i) for s in splits for c in classes for i in range(4)):
        make_image(root / split / name / f"{i}.png", k)
    return root


def test_digits_are_the_1797_of_scikit_learn() -> None:
    source = DigitsSource()
    items = source.items()
    assert (
        len(items) == 1797 and {i.class_name for i in items} == set("0123456789") and {i.split for i in items} == {""}
    )
    picture = np.asarray(source.open(items[0].path))
    assert picture.shape == (8, 8) and picture.dtype == np.uint8 and picture.max() == 255 * 15 // 16
    assert source.read(items[0].path) == picture.tobytes()


def test_a_folder_with_train_and_val_keeps_its_splits(tmp_path: Path) -> None:
    items = FolderSource(make_folder(tmp_path, ("train", "val"))).items()
    assert [i.path for i in items[:2]] == ["train/cat/0.png", "train/cat/1.png"]
    assert [(i.split, i.class_name) for i in items[::4]] == [
        ("train", "cat"),
        ("train", "dog"),
        ("val", "cat"),
        ("val", "dog"),
    ]
    assert split_of(items, DataConfig(path=str(tmp_path))) == ["train"] * 8 + ["val"] * 8


def test_a_folder_without_splits_leaves_splitting_to_us(tmp_path: Path) -> None:
    items = FolderSource(make_folder(tmp_path)).items()
    assert [i.path for i in items] == [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(4)]
    assert {i.split for i in items} == {""}


def test_only_images_in_class_folders_are_listed(tmp_path: Path) -> None:
    make_folder(tmp_path)
    make_image(tmp_path / "stray.png")
    make_image(tmp_path / ".cache" / "a.png")
    make_image(tmp_path / "cat" / "deeper" / "a.png")
    make_image(tmp_path / "cat" / "a.JPEG")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    assert [i.path for i in FolderSource(tmp_path).items() if i.class_name == "cat"] == [
        *(f"cat/{i}.png" for i in range(4)),
        "cat/a.JPEG",
    ]
    assert {i.class_name for i in FolderSource(tmp_path).items()} == {"cat", "dog"}


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"/nowhere does not exist: give the path"):
        FolderSource(tmp_path / "nowhere").items()
    with pytest.raises(SourceError, match=r"data\.path is not set"):
        open_source("folder", None)


@pytest.mark.parametrize("content", ["", "train/", "cat/", "cat/notes.txt"])
def test_a_folder_without_images_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no image") if path.suffix else path.mkdir(exist_ok=True)
    with pytest.raises(SourceError, match=r"no images \(.*\.jpg.*\) in class folders below /"):
        FolderSource(tmp_path).items()


def test_a_class_that_a_store_cannot_hold_is_refused(tmp_path: Path) -> None:
    make_image(tmp_path / "__cats" / "a.png")
    with pytest.raises(SourceError, match="__cats starts with '__'"):
        FolderSource(tmp_path).items()


def test_train_without_val_is_refused(tmp_path: Path) -> None:
    items = FolderSource(make_folder(tmp_path, ("train",))).items()
    with pytest.raises(SourceError, match="has train/ but no val/"):
        split_of(items, DataConfig(path=str(tmp_path)))


@pytest.mark.parametrize("damage", ["truncated", "noise", "empty", "bomb"])
def test_a_corrupt_image_raises_and_is_named(tmp_path: Path, damage: str) -> None:
    path = make_image(make_folder(tmp_path) / "cat" / "broken.jpg")
    data = path.read_bytes()
    if damage == "bomb":  # the header says 65,535 × 65,535 px
        at = data.index(b"\xff\xc0") + 5
        path.write_bytes(data[:at] + b"\xff" * 4 + data[at + 4 :])
    else:
        path.write_bytes({"truncated": data[: len(data) // 2], "noise": bytes(range(256)), "empty": b""}[damage])
    with pytest.raises(OSError):
        FolderSource(tmp_path).open("cat/broken.jpg")
    artifact = shard_artifact(tmp_path / "runs", DataConfig(path=str(tmp_path)))
    shard_task.fn(artifact, DataConfig(path=str(tmp_path)))
    shard, index = indexed(artifact)
    with pytest.raises(SourceError, match=r"image cat/broken\.jpg of .* cannot be read \(.+\): repair or remove it"):
        read_images(shard, index, np.arange(len(index.table)), ImageConfig(size_px=8))


def test_a_hash_follows_the_bytes_and_nothing_else(tmp_path: Path) -> None:
    here, there = (FolderSource(make_folder(tmp_path / name)) for name in ("here", "there"))
    assert content_hash(here, "cat/0.png") == content_hash(there, "cat/0.png") != content_hash(here, "cat/1.png")


def test_a_fingerprint_changes_when_a_file_is_added_removed_or_rewritten(tmp_path: Path) -> None:
    source = FolderSource(make_folder(tmp_path))
    seen = [fingerprint(source.items())]
    assert fingerprint(source.items()) == seen[0]
    make_image(tmp_path / "cat" / "9.png")
    seen.append(fingerprint(source.items()))
    (tmp_path / "cat" / "0.png").unlink()
    seen.append(fingerprint(source.items()))
    os.utime(tmp_path / "cat" / "1.png", ns=(0, 0))
    seen.append(fingerprint(source.items()))
    assert len(set(seen)) == 4


def test_a_class_with_too_few_training_images_is_named() -> None:
    check_counts(3, {"cat": 3, "dog": 5}, {"cat": 4, "dog": 6})
    with pytest.raises(SourceError, match=r"ipc=4 is more than class 'cat' has training images \(3\).*at most 3"):
        check_counts(4, {"cat": 3, "dog": 5}, {"cat": 4, "dog": 6})
    with pytest.raises(SourceError, match=r"class 'owl' has training images \(0\)"):
        check_counts(1, {"cat": 3}, {"cat": 4, "owl": 1})
