"""Images are read again and compared with what was indexed, whatever their size and time say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage.sources import DigitsSource, FolderSource, ParquetSource, TarSource, changed_images
from tasks.inputs.data import shard_artifact
from tasks.inputs.real import source_of
from tasks.recipe.settings import DataConfig
from tasks.shard import indexed
from tasks.shard import shard as shard_task
from tests.storage.sources.test_archives import picture, pictures, write_tar
from tests.storage.sources.test_parquet import write
from tests.storage.sources.test_sources import make_folder, run_shard


def flip_a_bit(path: Path, at: int = -20) -> None:
    """Size and time stay as they were."""
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=times)


def test_images_of_the_same_size_and_time_with_other_bytes_are_named(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", ("train", "val"))
    data = DataConfig(path=str(root))
    artifact = shard_artifact(tmp_path / "runs", data)
    shard_task.fn(artifact, data)
    shard, index = indexed(artifact)
    told: list[tuple[int, int]] = []
    assert list(changed_images(source_of(shard), index.table, lambda *done: told.append(done))) == []
    assert told == [(16, 16)]
    flip_a_bit(root / "train" / "cat" / "1.png")
    assert not isinstance(shard_task.fn(artifact, data), str), "the stage takes the source for unchanged"
    (root / "val" / "dog" / "0.png").unlink()
    (root / "val" / "dog" / "1.png").write_bytes(b"short")
    found = [str(image) for image in changed_images(FolderSource(root), index.table, lambda *_: None)]
    assert found[0] == "train/cat/1.png: other bytes than when it was indexed"
    assert found[1].startswith("val/dog/0.png: No such file") and "val/dog/1.png: 5 of" in found[2]
    assert len(found) == 3


def test_digits_do_not_change(tmp_path: Path) -> None:
    index = run_shard(tmp_path, DataConfig(source="digits"))
    assert list(changed_images(DigitsSource(), index.table, lambda *_: None)) == []


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_images_inside_archives_are_compared_too(tmp_path: Path, kind: str) -> None:
    source: TarSource | ParquetSource
    if kind == "tar":
        path = write_tar(tmp_path / "x.tar", pictures(f"{c}/{i}.png" for c in "ab" for i in range(4)))
        source = TarSource(path, unpacked=tmp_path)
    else:
        path = write(tmp_path / "x.parquet", list("abababab"))
        source = ParquetSource(path)
    table = run_shard(tmp_path / "runs", DataConfig.model_validate({"source": kind, "path": str(path)})).table
    assert list(changed_images(source, table, lambda *_: None)) == []
    flip_a_bit(path, path.read_bytes().index(picture(2)[60:80]))
    again = TarSource(path, unpacked=tmp_path) if kind == "tar" else ParquetSource(path)
    found = list(changed_images(again, table, lambda *_: None))
    assert len(found) == 1 and ("/2.png" in found[0].path or "row 2" in found[0].path)
