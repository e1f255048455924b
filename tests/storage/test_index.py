"""The index of a data set, its identity and its split."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.index import Index
from storage.sources import DigitsSource, FolderSource, SourceError, class_order, examine
from storage.sources.listing import clean_class_name
from tasks.inputs.stores import indexed
from tasks.recipe.settings import DataConfig
from tasks.shard import shard as shard_task
from tasks.shard import shard_artifact, split_listing
from tests.places import REPOSITORY
from tests.storage.sources.test_sources import make_folder, make_image


def index_of(root: Path) -> Index:
    source = FolderSource(root)
    images, hashes, _ = examine(source, split_listing(source, DataConfig(path=str(root))), 0, lambda *_: None)
    return Index.build(images, hashes, images["class"].unique().to_pylist())


def test_the_identity_does_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    here, there = (index_of(make_folder(tmp_path / name, ("train", "val"))) for name in ("here", "there"))
    assert here.identity == there.identity and len(here.identity) == 12


def test_the_identity_changes_with_a_picture_a_class_or_a_split(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", ("train", "val"))
    seen = [index_of(root).identity]
    make_image(root / "train" / "cat" / "0.png", 77)
    seen.append(index_of(root).identity)
    (root / "train" / "cat" / "0.png").rename(root / "train" / "dog" / "9.png")
    seen.append(index_of(root).identity)
    (root / "val" / "dog" / "0.png").rename(root / "train" / "dog" / "99.png")
    seen.append(index_of(root).identity)
    for split in ("train", "val"):
        (root / split / "dog").rename(root / split / "fox")
    seen.append(index_of(root).identity)
    assert len(set(seen)) == 5


def test_each_column_of_the_identity_counts_alone(tmp_path: Path) -> None:
    images = FolderSource(make_folder(tmp_path)).listing.images

    def identity(hashes: list[str], **changed: list[str]) -> str:
        table = images
        for name, values in changed.items():
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
        return Index.build(table, pa.chunked_array([hashes]), set(table["class"].to_pylist())).identity

    names, splits, hashes = images["class"].to_pylist(), ["train", "val"] * 4, [f"{k:x}" for k in range(8)]
    known = identity(hashes, split=splits)
    assert identity(hashes, split=splits, path=[f"elsewhere/{k}" for k in range(8)]) == known
    others = [
        identity(hashes, split=splits, **{"class": [name.upper() for name in names]}),
        identity(hashes, split=splits[::-1]),
        identity(hashes[::-1], split=splits),
    ]
    assert len({known, *others}) == 4


def test_names_that_are_all_numbers_are_ordered_as_numbers_and_others_as_strings() -> None:
    assert class_order(["10", "9", "0", "-1"]) == ("-1", "0", "9", "10")
    assert class_order(["10", "9", "a"]) == ("10", "9", "a")
    assert class_order(["n02", "n01", "n01"]) == ("n01", "n02")
    assert clean_class_name("n/a, none") == "n-a, none"


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b", "__x"])
def test_what_cannot_be_a_class_is_refused_by_name(name: str) -> None:
    with pytest.raises(SourceError, match=r"^class '.*' (has a NUL in it|starts with '__' or is empty).*: rename it$"):
        clean_class_name(name)


def test_an_index_comes_back_as_written_and_plain_parquet_reads_it(tmp_path: Path) -> None:
    index = index_of(make_folder(tmp_path / "set", ("train", "val")))
    index.write(tmp_path)
    again = Index.read(tmp_path)
    assert again.table.equals(index.table) and again.identity == index.identity
    assert pq.read_table(tmp_path / "index.parquet").num_rows == 16


def test_rows_labels_paths_and_counts_agree(tmp_path: Path) -> None:
    root = make_folder(tmp_path, ("train", "val"))
    (root / "val" / "cat" / "3.png").unlink()
    make_image(root / "train" / "ant" / "0.png")
    index = index_of(root)
    assert index.classes == ("ant", "cat", "dog")
    assert index.counts("train") == {"ant": 1, "cat": 4, "dog": 4} and index.counts("val") == {
        "ant": 0,
        "cat": 3,
        "dog": 4,
    }
    rows = index.rows("train", "dog")
    assert [at.path for at in index.locations(rows)] == [f"train/dog/{i}.png" for i in range(4)]
    np.testing.assert_array_equal(index.labels(rows), 2)
    assert set(index.rows("train")) | set(index.rows("val")) == set(range(len(index.table)))
    assert index.hashes(rows[::-1]) == index.hashes(rows)[::-1]


def test_the_stratified_split_is_deterministic_and_keeps_the_shares() -> None:
    first, again, other = (split_listing(DigitsSource(), DataConfig(source="digits", split_seed=s)) for s in (0, 0, 1))
    assert first == again and first != other
    held_out = Counter(row["class"] for row in first.images.to_pylist() if row["split"] == "val")
    every = Counter(first.images["class"].to_pylist())
    assert all(abs(held_out[c] - every[c] / 4) <= 1 for c in every)


def test_training_images_kept_for_choosing_are_of_every_class_and_of_no_other_split() -> None:
    plain, kept = (
        split_listing(DigitsSource(), DataConfig(source="digits", tune_fraction=share)) for share in (0, 0.2)
    )
    splits = [(a, b) for a, b in zip(plain.images["split"].to_pylist(), kept.images["split"].to_pylist(), strict=True)]
    assert Counter(splits).keys() == {("val", "val"), ("train", "train"), ("train", "tune")}
    rows = kept.images.to_pylist()
    counts = {split: Counter(row["class"] for row in rows if row["split"] == split) for split in ("train", "tune")}
    assert all(abs(counts["tune"][c] - (counts["train"][c] + counts["tune"][c]) / 5) <= 1 for c in counts["train"])
    few = split_listing(DigitsSource(), DataConfig(source="digits", tune_fraction=0.001))
    assert few == plain, "of a thousandth of 140 images none is kept"
    assert split_listing(DigitsSource(), DataConfig(source="digits", tune_fraction=0.2)) == kept


def test_a_moved_data_set_is_known_as_the_same(tmp_path: Path) -> None:
    known = []
    for name in ("here", "there"):
        data = DataConfig(path=str(make_folder(tmp_path / name)))
        artifact = shard_artifact(tmp_path / "runs", data)
        shard_task.fn(artifact, data)
        known.append(indexed(artifact)[0])
    assert known[0].path != known[1].path and known[0].identity == known[1].identity


def test_a_changed_source_is_indexed_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    data = DataConfig(path=str(make_folder(tmp_path / "set")))
    artifact = shard_artifact(tmp_path / "runs", data)
    shard_task.fn(artifact, data)
    first = artifact.record()
    assert not isinstance(shard_task.fn(artifact, data), str) and artifact.record() == first
    make_image(tmp_path / "set" / "cat" / "9.png", 9)
    assert shard_task.fn(artifact, data) == str(artifact)
    assert artifact.record().facts["images"] == 9 and artifact.record().content != first.content


def test_an_index_of_a_twentieth_of_imagenet_takes_little_memory() -> None:
    """64,058 + 2,500 images, in packs of neighbouring classes; what the imports take is most of it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.index", "0.05"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["images"] == 66_558 and result["units"] == 33
    assert result["peak_gib"] - result["imports_gib"] < 0.15
