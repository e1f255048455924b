"""The index of a data set, its identity and its split."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from storage.index import Index
from storage.sources import DigitsSource, FolderSource, content_hash
from tasks.config import DataConfig
from tasks.shard import indexed, shard_artifact, split_of
from tasks.shard import shard as shard_task
from tests.storage.test_sources import make_folder, make_image


def index_of(root: Path) -> Index:
    source = FolderSource(root)
    items = source.items()
    hashes = [content_hash(source, item.path) for item in items]
    return Index.build(items, split_of(items, DataConfig(path=str(root))), hashes)


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
    items = FolderSource(make_folder(tmp_path)).items()
    splits, hashes = ["train", "val"] * 4, [f"{k:x}" for k in range(8)]
    renamed = [replace(item, class_name=item.class_name.upper()) for item in items]
    moved = [replace(item, path=f"elsewhere/{item.path}", mtime_ns=0) for item in items]
    known = Index.build(items, splits, hashes).identity
    assert Index.build(moved, splits, hashes).identity == known
    others = [(renamed, splits, hashes), (items, splits[::-1], hashes), (items, splits, hashes[::-1])]
    assert len({known, *(Index.build(*columns).identity for columns in others)}) == 4


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
    assert index.paths(rows) == [f"train/dog/{i}.png" for i in range(4)]
    np.testing.assert_array_equal(index.labels(rows), 2)
    assert set(index.rows("train")) | set(index.rows("val")) == set(range(len(index.table)))
    assert index.hashes(rows[::-1]) == index.hashes(rows)[::-1]


def test_the_stratified_split_is_deterministic_and_keeps_the_shares() -> None:
    items = DigitsSource().items()
    split = split_of(items, DataConfig(source="digits"))
    assert split == split_of(items, DataConfig(source="digits"))
    assert split != split_of(items, DataConfig(source="digits", split_seed=1))
    held_out = Counter(item.class_name for item, s in zip(items, split, strict=True) if s == "val")
    every = Counter(item.class_name for item in items)
    assert all(abs(held_out[c] - every[c] / 4) <= 1 for c in every)


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
