"""Folders and digits as sources, and the stage that indexes them: what is listed, refused, and looked at again."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.catalogue import load_recipe
from storage.index import Index
from storage.sources import DigitsSource, FolderSource, RefusedImage, Source, SourceError, content_hash, examine
from storage.sources.listing import Location, locations
from tasks import shard as stage
from tasks.inputs.data import check_counts, check_source, shard_artifact, split_listing
from tasks.inputs.real import read_images, source_of
from tasks.inputs.stores import indexed
from tasks.pages.findings import unknown_class_names
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import DataConfig, ImageConfig

TINY = {"name": "tiny", "ipc": 1, "autoencoder": {"weights": "x"}, "prior": {"kind": "dit", "weights": "x"}}


def make_image(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_folder(root: Path, splits: tuple[str, ...] = ("",), classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for k, (split, name, i) in enumerate((s, c, i) for s in splits for c in classes for i in range(4)):
        make_image(root / split / name / f"{i}.png", k)
    return root


def listed(source: Source) -> list[tuple[str, str, str]]:
    """(name, class, split) of every image."""
    images = source.listing.images
    names = [at.name for at in locations(images)]
    return list(zip(names, images["class"].to_pylist(), images["split"].to_pylist(), strict=True))


def run_shard(root: Path, data: DataConfig) -> Index:
    artifact = shard_artifact(root, data)
    stage.shard.fn(artifact, data)
    return indexed(artifact)[1]


def test_digits_are_the_1797_of_scikit_learn() -> None:
    source = DigitsSource()
    found = listed(source)
    assert len(found) == 1797 and {c for _, c, _ in found} == set("0123456789") and {s for _, _, s in found} == {""}
    at = next(locations(source.listing.images))
    picture = np.asarray(source.open(at))
    assert picture.shape == (8, 8, 3) and picture.dtype == np.uint8 and picture.max() == 255 * 15 // 16
    assert source.read(at) == picture[:, :, 0].tobytes()


def test_the_index_of_the_digits_is_known_by_this_name(tmp_path: Path) -> None:
    """All artifacts of the recipe digits chain on it."""
    assert run_shard(tmp_path, DataConfig(source="digits")).identity == "696338fd7601"


def test_a_folder_with_train_and_val_keeps_its_splits(tmp_path: Path) -> None:
    source = FolderSource(make_folder(tmp_path, ("train", "val")))
    assert [name for name, _, _ in listed(source)[:2]] == ["train/cat/0.png", "train/cat/1.png"]
    assert [(s, c) for _, c, s in listed(source)[::4]] == [
        ("train", "cat"),
        ("train", "dog"),
        ("val", "cat"),
        ("val", "dog"),
    ]
    assert split_listing(source, DataConfig(path=str(tmp_path))) == source.listing


def test_a_test_folder_stands_in_for_val_only_where_there_is_none(tmp_path: Path) -> None:
    make_folder(tmp_path, ("train", "test"))
    assert Counter(s for _, _, s in listed(FolderSource(tmp_path))) == {"train": 8, "val": 8}
    make_folder(tmp_path, ("validation",), ("cat",))
    names = [name for name, _, split in listed(FolderSource(tmp_path)) if split == "val"]
    assert names == [f"validation/cat/{i}.png" for i in range(4)]


def test_validation_images_may_lie_elsewhere(tmp_path: Path) -> None:
    train, val = make_folder(tmp_path / "a"), make_folder(tmp_path / "b")
    source = FolderSource(train, val)
    assert listed(source)[0] == ("cat/0.png", "cat", "train")
    assert listed(source)[8] == (f"{val}/cat/0.png", "cat", "val")
    assert source.open(next(locations(source.listing.images.slice(8)))).size == (16, 16)


def test_a_folder_without_splits_leaves_splitting_to_us(tmp_path: Path) -> None:
    found = listed(FolderSource(make_folder(tmp_path)))
    assert [name for name, _, _ in found] == [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(4)]
    assert {split for _, _, split in found} == {""}


def test_only_images_in_class_folders_are_listed(tmp_path: Path) -> None:
    make_folder(tmp_path)
    make_image(tmp_path / "stray.png")
    make_image(tmp_path / ".cache" / "a.png")
    make_image(tmp_path / "cat" / "deeper" / "a.png")
    make_image(tmp_path / "cat" / "a.JPEG")
    make_image(tmp_path / "cat" / "._a.jpg")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    found = listed(FolderSource(tmp_path))
    assert [name for name, c, _ in found if c == "cat"] == [*(f"cat/{i}.png" for i in range(4)), "cat/a.JPEG"]
    assert {c for _, c, _ in found} == {"cat", "dog"}


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"/nowhere does not exist: give the path"):
        FolderSource(tmp_path / "nowhere").list_images()
    with pytest.raises(SourceError, match=r"data\.path is not set"):
        run_shard(tmp_path, DataConfig())


@pytest.mark.parametrize("content", ["", "train/", "cat/", "cat/notes.txt"])
def test_a_folder_without_images_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no image") if path.suffix else path.mkdir(exist_ok=True)
    with pytest.raises(SourceError, match=r"no images \(.*\.jpg.*\) in class folders below /"):
        FolderSource(tmp_path).list_images()


def test_a_class_that_a_store_cannot_hold_is_refused(tmp_path: Path) -> None:
    make_image(tmp_path / "__cats" / "a.png")
    with pytest.raises(SourceError, match="'__cats' starts with '__'"):
        FolderSource(tmp_path).list_images()


def test_train_without_val_is_refused(tmp_path: Path) -> None:
    source = FolderSource(make_folder(tmp_path, ("train",)))
    with pytest.raises(
        SourceError, match=r"the images of .* are of train alone: put all of them below train/ and val/"
    ):
        split_listing(source, DataConfig(path=str(tmp_path)))


# --- refused images -------------------------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    data = make_image(path).read_bytes()
    if how == "bomb":  # the header says 65,535 × 65,535 px
        at = data.index(b"\xff\xc0") + 5
        path.write_bytes(data[:at] + b"\xff" * 4 + data[at + 4 :])
    elif how == "gone":
        path.unlink()
        path.symlink_to("nowhere")
    else:
        path.write_bytes({"truncated": data[: len(data) * 7 // 8], "noise": bytes(range(256)), "empty": b""}[how])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("truncated", "truncated"),
        ("noise", "no image of a known format"),
        ("empty", "no bytes"),
        ("bomb", "exceeds limit"),
        ("gone", "No such file or directory"),
    ],
)
def test_an_image_that_cannot_be_shown_is_listed_with_its_reason_and_not_indexed(
    tmp_path: Path, how: str, reason: str
) -> None:
    damage(make_folder(tmp_path / "set") / "cat" / "broken.jpg", how)
    source = FolderSource(tmp_path / "set")
    broken = next(at for at in locations(source.listing.images) if at.path == "cat/broken.jpg")
    with pytest.raises(RefusedImage, match=reason):
        source.open(broken)
    data = DataConfig(path=str(tmp_path / "set"), max_refused=0.5)
    index = run_shard(tmp_path / "runs", data)
    artifact = shard_artifact(tmp_path / "runs", data)
    assert "cat/broken.jpg" not in index.table["path"].to_pylist() and len(index.table) == 8
    [row] = pq.read_table(artifact.path / "index" / "refused.parquet").to_pylist()
    assert (row["path"], row["class"]) == ("cat/broken.jpg", "cat") and reason in row["reason"]
    assert row["split"] in ("train", "val") and artifact.record().facts["refused"] == 1


def test_too_many_pixels_are_a_setting(tmp_path: Path) -> None:
    data = DataConfig(path=str(make_folder(tmp_path / "set")), max_pixels=255)
    with pytest.raises(SourceError, match=r"cat/0\.png: 16 × 16 px is more than 255 pixels"):
        run_shard(tmp_path, data)


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "set")
    name = os.fsdecode(b"caf\xe9.png")
    make_image(tmp_path / "set" / "cat" / "a.png").rename(tmp_path / "set" / "cat" / name)
    data = DataConfig(path=str(tmp_path / "set"), max_refused=0.5)
    assert len(run_shard(tmp_path / "runs", data).table) == 8
    [row] = pq.read_table(shard_artifact(tmp_path / "runs", data).path / "index" / "refused.parquet").to_pylist()
    assert row["path"] == r"cat/caf\xe9.png" and "not valid UTF-8" in row["reason"]


def test_too_large_a_share_of_refused_images_ends_the_stage_and_names_the_first(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    for k in range(5):
        damage(root / "dog" / f"broken{k}.jpg", "empty")
    with pytest.raises(SourceError, match=r"^5 of 13 images .*max_refused=0\.3: dog/broken0.*; …\. Repair or remove"):
        run_shard(tmp_path / "runs", DataConfig(path=str(root), max_refused=0.3))
    data = DataConfig(path=str(root), max_refused=0.4)
    assert len(run_shard(tmp_path / "runs", data).table) == 8
    with pytest.raises(SourceError, match="5 of 13 images"):  # although the index is there
        run_shard(tmp_path / "runs", data.model_copy(update={"max_refused": 0.3}))


def test_a_class_that_lost_all_its_images_is_not_forgotten(tmp_path: Path) -> None:
    damage(make_folder(tmp_path / "set", ("train", "val")) / "train" / "owl" / "broken.jpg", "empty")
    index = run_shard(tmp_path / "runs", DataConfig(path=str(tmp_path / "set"), max_refused=0.5))
    assert index.counts("train") == {"cat": 4, "dog": 4, "owl": 0}
    with pytest.raises(SourceError, match=r"class 'owl' has training images \(0\)"):
        check_counts(load_recipe("digits", ipc=1), index.counts("train"))


@pytest.mark.parametrize(("how", "reason"), [("gone", "No such file"), ("shorter", r"\d+ of \d+ bytes are there")])
def test_a_file_that_vanishes_or_shrinks_between_listing_and_reading_is_refused(
    tmp_path: Path, how: str, reason: str
) -> None:
    source = FolderSource(make_folder(tmp_path))
    listing = source.listing
    path = tmp_path / "dog" / "1.png"
    path.unlink() if how == "gone" else os.truncate(path, 20)
    images, hashes, refused = examine(source, listing, 0.5, lambda *_: None)
    assert len(images) == len(hashes) == 7 and "dog/1.png" not in images["path"].to_pylist()
    assert refused["path"].to_pylist() == ["dog/1.png"]
    with pytest.raises(SourceError, match=rf"^1 of 8 images cannot be shown.*dog/1\.png: {reason}"):
        examine(source, listing, 0.1, lambda *_: None)


@pytest.mark.parametrize("how", ["truncated", "gone"])
def test_an_image_that_broke_after_it_was_indexed_raises_and_is_named(tmp_path: Path, how: str) -> None:
    data = DataConfig(path=str(make_folder(tmp_path / "set")))
    artifact = shard_artifact(tmp_path / "runs", data)
    stage.shard.fn(artifact, data)
    shard, index = indexed(artifact)
    damage(tmp_path / "set" / "dog" / "1.png", how)
    with pytest.raises(SourceError, match=r"image dog/1\.png can no longer be read \(.+\): repair or remove it"):
        read_images(shard, index, np.arange(len(index.table)), ImageConfig(size_px=8))


def test_the_source_of_an_index_opens_what_was_listed(tmp_path: Path) -> None:
    data = DataConfig(path=str(make_folder(tmp_path / "set")))
    artifact = shard_artifact(tmp_path / "runs", data)
    stage.shard.fn(artifact, data)
    shard, index = indexed(artifact)
    source = source_of(shard)
    assert source is source_of(shard_artifact(tmp_path / "runs", data))
    for at in index.locations(np.arange(8)):
        with Image.open(tmp_path / "set" / at.path) as image:
            np.testing.assert_array_equal(np.asarray(source.open(at)), np.asarray(image))


# --- identity, and looking again -------------------------------------------------------------------------


def test_a_hash_follows_the_bytes_and_nothing_else(tmp_path: Path) -> None:
    here, there = (FolderSource(make_folder(tmp_path / name)) for name in ("here", "there"))
    first, second = Location("cat/0.png", 0, 100), Location("cat/1.png", 0, 100)
    assert content_hash(here.read(first)) == content_hash(there.read(first)) != content_hash(here.read(second))


def test_a_fingerprint_changes_when_a_file_is_added_removed_or_rewritten(tmp_path: Path) -> None:
    make_folder(tmp_path)
    seen = [FolderSource(tmp_path).fingerprint()]
    assert FolderSource(tmp_path).fingerprint() == seen[0]
    make_image(tmp_path / "cat" / "9.png")
    seen.append(FolderSource(tmp_path).fingerprint())
    (tmp_path / "cat" / "0.png").unlink()
    seen.append(FolderSource(tmp_path).fingerprint())
    os.utime(tmp_path / "cat" / "1.png", ns=(0, 0))
    seen.append(FolderSource(tmp_path).fingerprint())
    assert len(set(seen)) == 4


def test_the_early_check_lists_once_for_the_stage_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.model_validate({**TINY, "data": {"path": str(make_folder(tmp_path / "set"))}})
    walks = []
    walk = FolderSource.list_place
    monkeypatch.setattr(FolderSource, "list_place", lambda *given: walks.append(1) or walk(*given))
    check_source(recipe, tmp_path)
    run_shard(tmp_path, recipe.data)
    assert len(walks) == 1
    check_source(recipe, tmp_path)
    make_image(tmp_path / "set" / "cat" / "new.png", 9)
    check_source(recipe, tmp_path)
    assert len(run_shard(tmp_path, recipe.data).table) == 9 and len(walks) == 3


def test_the_early_check_refuses_what_cannot_serve_the_recipe(tmp_path: Path) -> None:
    data = {"path": str(make_folder(tmp_path / "set"))}
    for ipc, message in ((4, r"ipc=4 is more than class 'cat' has training images \(3\).*at most 3"), (3, None)):
        recipe = Recipe.model_validate({**TINY, "ipc": ipc, "data": data})
        if message:
            with pytest.raises(SourceError, match=message):
                check_source(recipe, tmp_path)
        else:
            check_source(recipe, tmp_path)
    recipe = Recipe.model_validate({**TINY, "data": {**data, "val_fraction": 0.01}})
    with pytest.raises(SourceError, match=r"data\.val_fraction=0\.01 cannot split every class"):
        check_source(recipe, tmp_path)


# --- what a reader of the results should know -------------------------------------------------------------


def test_an_image_in_training_and_validation_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_folder(tmp_path / "set", ("train", "val"))
    (root / "val" / "dog" / "twin.png").write_bytes((root / "train" / "cat" / "0.png").read_bytes())
    (root / "train" / "dog" / "twin.png").write_bytes((root / "train" / "dog" / "0.png").read_bytes())
    data = DataConfig(path=str(root))
    with caplog.at_level(logging.WARNING, "tasks.shard"):
        run_shard(tmp_path / "runs", data)
    facts = shard_artifact(tmp_path / "runs", data).record().facts
    assert facts["duplicates_across_splits"] == 1 and facts["duplicates_in_training"] == 1
    assert facts["first_duplicates"] == ["val/dog/twin.png = train/cat/0.png"]
    assert "in training too, which flatters every accuracy: 1 (val/dog/twin.png" in caplog.text


def test_class_folders_that_are_not_of_imagenet_are_named_where_most_are() -> None:
    assert unknown_class_names(("n01440764", "n01443537", "n00000001")) == ["n00000001"]
    assert unknown_class_names(("n01440764", "n01443537", "others")) == ["others"]
    assert unknown_class_names(("cat", "dog", "n01440764")) == []
    assert unknown_class_names(("n00000001", "n00000002", "n01440764")) == []


def test_a_class_with_too_few_training_images_is_named() -> None:
    check_counts(load_recipe("digits", ipc=3), {"cat": 3, "dog": 5})
    with pytest.raises(SourceError, match=r"ipc=4 is more than class 'cat' has training images \(3\).*at most 3"):
        check_counts(load_recipe("digits", ipc=4), {"cat": 3, "dog": 5})


def test_mosaics_ask_for_an_image_for_each_tile() -> None:
    recipe = load_recipe("digits", ipc=3).with_changes({"methods": {"plain": {}, "tiled": {"decode": {"mosaic": 2}}}})
    check_counts(recipe, {"cat": 12, "dog": 50})
    told = (
        r"ipc=3 of 4 tiles for the method 'tiled' is more than class 'cat' .* \(11\): set ipc to at most 2, or decode\."
    )
    with pytest.raises(SourceError, match=told):
        check_counts(recipe, {"cat": 11, "dog": 50})


# --- subsets ------------------------------------------------------------------------------------------------


def test_a_subset_takes_its_classes_alone_and_names_those_that_lack(tmp_path: Path) -> None:
    from storage.sources import subset_classes

    classes = subset_classes("imagenette")
    root = make_folder(tmp_path / "set", ("train", "val"), (*classes, "n01443537"))
    data = DataConfig(path=str(root), subset="imagenette")
    assert run_shard(tmp_path, data).classes == tuple(sorted(classes))
    with pytest.raises(SourceError, match=r"lacks 10 of the 10 classes of data\.subset=imagewoof: n02096294"):
        run_shard(tmp_path, DataConfig(path=str(root), subset="imagewoof"))


def test_every_subset_is_a_list_of_imagenet_classes() -> None:
    from typing import get_args

    from ddoq_core.imagenet import imagenet_index
    from storage.sources import subset_classes
    from storage.sources.subsets import LISTS
    from tasks.recipe.settings import Subset

    assert {path.stem for path in LISTS.glob("*.txt")} == set(get_args(Subset))
    for name in get_args(Subset):
        classes = subset_classes(name)
        assert len(set(classes)) == len(classes) == (100 if name == "imagenet100" else 10)
        assert all(imagenet_index(c) is not None for c in classes)
    assert subset_classes("imageidc") == subset_classes("imagenet100")[:10]
