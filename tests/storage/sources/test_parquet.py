"""Parquet files as Hugging Face writes image data sets."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.sources import ParquetSource, RefusedImage, SourceError
from storage.sources.listing import locations
from tasks.recipe.settings import DataConfig
from tests.storage.sources.test_archives import picture
from tests.storage.sources.test_sources import listed, run_shard

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, labels: list[Any], *, names: list[str] | None = None, first: int = 0, **columns: str) -> Path:
    """Images `picture(first)`, … in row groups of 4; columns are called image and label unless told otherwise."""
    image, label = columns.get("image", "image"), columns.get("label", "label")
    cells = [{"bytes": picture(first + k), "path": f"{k}.png"} for k in range(len(labels))]
    table = pa.table({"id": range(len(labels)), image: pa.array(cells, IMAGE), label: labels})
    if names:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)
    return path


def read_all(source: ParquetSource) -> list[bytes]:
    return [source.read(at) for at in locations(source.listing.images)]


def test_splits_by_file_name_and_classes_by_the_metadata(tmp_path: Path) -> None:
    names = ["tench, Tinca tinca", "n/a"]
    write(tmp_path / "train-00000-of-00002.parquet", [0, 1, 0, 1, 0, 1], names=names)
    write(tmp_path / "train-00001-of-00002.parquet", [1, 0], names=names, first=6)
    write(tmp_path / "validation-00000-of-00001.parquet", [1, 0], names=names, first=8)
    write(tmp_path / "test-00000-of-00001.parquet", [-1, -1], names=names, first=10)
    source = ParquetSource(tmp_path)
    assert read_all(source) == [picture(k) for k in range(10)]
    assert all(source.open(at).size == (8, 8) for at in locations(source.listing.images))
    tench, other = "tench, Tinca tinca", "n-a"
    assert [c for _, c, _ in listed(source)] == [tench, other, tench, other, tench, other, other, tench, other, tench]
    assert [s for _, _, s in listed(source)] == ["train"] * 8 + ["val"] * 2
    assert listed(source)[5][0] == "train-00000-of-00002.parquet: row 5" and len(source.listing.refused) == 0
    index = run_shard(tmp_path / "runs", DataConfig(source="parquet", path=str(tmp_path)))
    assert index.classes == (other, tench) and len(index.table) == 10


def test_plain_bytes_and_names_with_validation_elsewhere(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b")):
        table = pa.table({"picture": pa.array([picture(k)], pa.binary()), "class": [f"c{k}"]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    source = ParquetSource(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert [(c, s) for _, c, s in listed(source)] == [("c0", "train"), ("c1", "val")]
    assert read_all(source) == [picture(0), picture(1)]


def test_columns_are_found_by_the_metadata_too(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", [1, 0], names=["a", "b"], image="pixels", label="fine")
    assert [c for _, c, _ in listed(ParquetSource(tmp_path / "x.parquet"))] == ["b", "a"]


def test_two_classes_that_would_share_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"class 'a-b' and another one would both be called 'a-b'"):
        ParquetSource(write(tmp_path / "x.parquet", ["a/b", "a-b"])).list_images()


@pytest.mark.parametrize("columns", [{"image": "label", "label": "image2"}, {"label": "what"}])
def test_a_column_that_cannot_be_found_is_named_with_those_that_are(tmp_path: Path, columns: dict[str, str]) -> None:
    path = write(tmp_path / "x.parquet", [0], **columns)
    if "image" in columns:
        pq.write_table(pa.table({"label": [0], "text": ["a"]}), path)
        with pytest.raises(SourceError, match=r"has no image column among label, text: call it 'image'"):
            ParquetSource(path).list_images()
    else:
        with pytest.raises(SourceError, match=r"has no label column among id, image, what: call it 'label'"):
            ParquetSource(path).list_images()


def test_rows_without_a_label_or_without_bytes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", ["a", None, "a"])
    table = pq.read_table(path)
    cells = [{"bytes": picture(0), "path": ""}, {"bytes": picture(1), "path": ""}, {"bytes": None, "path": "x.png"}]
    pq.write_table(table.set_column(1, "image", pa.array(cells, IMAGE)), path)
    source = ParquetSource(path)
    assert source.listing.refused.to_pylist()[0]["reason"] == "no label"
    with pytest.raises(RefusedImage, match=r"x\.parquet: row 2: no bytes"):
        read_all(source)


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", ["a"] * 9)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SourceError, match=r"x\.parquet is no whole parquet file .*: fetch it again"):
        ParquetSource(path).list_images()


def test_many_threads_read_more_row_groups_than_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", ["a"] * 40)
    source = ParquetSource(tmp_path / "a.parquet")
    found = list(locations(source.listing.images))
    start = threading.Barrier(8)

    def look(seed: int) -> bool:
        start.wait(timeout=30)
        order = np.random.default_rng(seed).permutation(len(found))
        return all(source.read(found[k]) == picture(int(k)) for k in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, range(8)))
