"""What stands where a file is expected and is none is refused without being opened, which could take for ever."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from storage.sources import FolderSource, ParquetSource, SourceError, TarSource, WebDatasetSource
from storage.sources.places import named_files
from tasks.inputs.data import shard_artifact
from tasks.recipe.settings import DataConfig
from tests.storage.sources.test_sources import listed, make_folder, run_shard

pytestmark = pytest.mark.timeout(60)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


OTHERS: dict[str, Callable[[Path], object]] = {
    "a fifo": os.mkfifo,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize(("kind", "make"), [*OTHERS.items(), ("Too many levels of symbolic links", make_loop)])
def test_among_images_it_is_listed_as_refused(
    tmp_path: Path, kind: str, make: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path / "set", ("train", "val"))
    monkeypatch.chdir(root / "train" / "cat")  # a socket's path must be short
    make(Path("x.jpg"))
    data = DataConfig(path=str(root), max_refused=0.5)
    assert len(run_shard(tmp_path / "runs", data).table) == 16
    [row] = pq.read_table(shard_artifact(tmp_path / "runs", data).path / "index" / "refused.parquet").to_pylist()
    assert row["path"] == "train/cat/x.jpg" and row["class"] == "cat" and kind in row["reason"]


@pytest.mark.parametrize(("kind", "make"), OTHERS.items())
def test_in_place_of_an_archive_it_is_refused(
    tmp_path: Path, kind: str, make: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.tar", "x.tar.gz", "x.parquet"):
        make(Path(name))
    for open_it in (
        lambda: ParquetSource(Path()).list_images(),
        lambda: TarSource(Path(), unpacked=Path("u")).list_images(),
        lambda: TarSource(Path("*.tar.gz"), unpacked=Path("u")).compressed(),
        lambda: WebDatasetSource(Path("{0..0}.tar"), unpacked=Path("u")).list_images(),
    ):
        Path("0.tar").unlink(missing_ok=True)
        Path("0.tar").symlink_to("x.tar")
        with pytest.raises(SourceError, match=rf"^\S+ is {kind}, not a file: move it away, or give another path$"):
            open_it()


@pytest.mark.parametrize(("kind", "make"), [(kind, make) for kind, make in OTHERS.items() if kind != "a folder"])
@pytest.mark.parametrize("name", ["val.txt", "LOC.csv", "devkit.tar.gz"])
def test_in_place_of_labels_it_is_refused(
    tmp_path: Path, kind: str, make: Callable[[Path], object], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    make(Path(name))
    with pytest.raises(SourceError, match=rf"{name} is {kind}, not a file"):
        FolderSource(root, root / "cat", tmp_path / name).list_images()


def test_links_that_lead_round_in_circles_end(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    make_loop(root / "loop")
    (root / "cat" / "again").symlink_to("..")
    (root / "again").symlink_to(".")
    assert {c for _, c, _ in listed(FolderSource(root))} == {"cat", "dog"}
    for look in (FolderSource(root / "loop").list_images, lambda: named_files(root / "loop", (".tar",))):
        with pytest.raises(SourceError, match=r"loop cannot be read|no \.tar files at .*loop"):
            look()


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "loop"])
def test_paths_that_cannot_be_looked_at_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "loop":
        make_loop(path)
    for look in (
        lambda: FolderSource(path).list_images(),
        lambda: ParquetSource(path).list_images(),
        lambda: FolderSource(make_folder(tmp_path / "set"), tmp_path / "set" / "cat", path).list_images(),
    ):
        with pytest.raises(SourceError, match=r"(cannot be (read|looked at) \(.+\)|no \.parquet files at .*): \w"):
            look()


def test_a_range_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"means 10{12} files, more than 1000000: check the range"):
        named_files(tmp_path / "{000000..999999}-{000000..999999}.tar", (".tar",))
