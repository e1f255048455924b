"""Sources that are not as they should be: each ends with one line that says what and what to do, or with images that
are listed as refused; never with a traceback, without memory, or without end."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.sources import (
    FolderSource,
    ParquetSource,
    RefusedImage,
    Source,
    SourceError,
    TarSource,
    WebDatasetSource,
    archives,
    examine,
    unpack,
)
from storage.sources.ground_truth import META, TRUTH
from storage.sources.listing import locations
from tests.storage.sources.test_archives import picture, pictures, tar_bytes, write_tar
from tests.storage.sources.test_ground_truth import IDS, NAMES, TRUE, make_devkit, make_flat
from tests.storage.sources.test_parquet import IMAGE
from tests.storage.sources.test_pictures import png
from tests.storage.sources.test_sources import listed, make_folder, make_image

pytestmark = pytest.mark.timeout(120)


def refused(source: Source) -> list[str]:
    """Why images were refused, when listed or when looked at."""
    return examine(source, source.listing, 1.0, lambda *_: None).refused["reason"].to_pylist()


def assert_one_line(error: SourceError, *, remedy: bool = True) -> None:
    text = str(error)
    assert "\n" not in text and len(text) < 1500 and (": " in text or not remedy)


# --- parquet ---------------------------------------------------------------------------------------------------

CELL = {"bytes": picture(0), "path": "0.png"}
GOOD = {"image": pa.array([CELL] * 2, IMAGE), "label": pa.array([0, 1])}


def parquet(path: Path, columns: Mapping[str, Any], described: bytes | None = None) -> ParquetSource:
    table = pa.table(dict(columns))
    pq.write_table(table.replace_schema_metadata({b"huggingface": described} if described else None), path)
    return ParquetSource(path)


def names(*values: Any) -> bytes:
    return json.dumps({"info": {"features": {"label": {"names": values, "_type": "ClassLabel"}}}}).encode()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0, 1]}, "has no image column among label: call it 'image'"),
        ({"image": GOOD["image"]}, "has no label column among image: call it 'label'"),
        ({**GOOD, "image": ["a", "b"]}, "column 'image' holds string: write it as binary"),
        ({**GOOD, "image": [1 << 40, 2]}, "column 'image' holds int64: write it as binary"),
        ({**GOOD, "image": [[b"a"], [b"b"]]}, "column 'image' holds list<.*binary>: write it as binary"),
        ({**GOOD, "image": [{"pixels": b"a"}] * 2}, "column 'image' holds struct<pixels: binary>: write it as"),
        ({**GOOD, "image": [{"bytes": "a"}] * 2}, "column 'image' holds struct<bytes: string>: write it as"),
        ({**GOOD, "image": pa.nulls(2)}, "column 'image' holds null: write it as"),
        ({**GOOD, "label": [[0], [1]]}, "column 'label' holds list<.*int64>: write it as integers or strings"),
        ({**GOOD, "label": [0.0, 1.0]}, "column 'label' holds double: write it as integers or strings"),
        ({**GOOD, "label": [b"a", b"b"]}, "column 'label' holds binary: write it as integers or strings"),
        ({**GOOD, "label": pa.nulls(2)}, "column 'label' holds null: write it as integers or strings"),
        ({name: column.slice(0, 0) for name, column in GOOD.items()}, r"no images in the parquet files \S+x\.parquet"),
        ({}, "has no image column among : call it 'image'"),
    ],
)
def test_parquet_columns_that_hold_something_else_are_refused(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        parquet(tmp_path / "x.parquet", columns).list_images()
    assert_one_line(caught.value, remedy=":" in message)


@pytest.mark.parametrize(
    "described",
    [
        b"\xff\xfe", b"{", b"[]", b"3", b"null", b'{"info": []}', b'{"info": {"features": []}}', b"[" * 100_000,
        names("a", "b").replace(b'["a", "b"]', b'"ab"'), names("a", "b").replace(b'["a", "b"]', b'{"0": "a"}'),
    ],
)  # fmt: skip
def test_parquet_metadata_that_cannot_be_understood_is_refused(tmp_path: Path, described: bytes) -> None:
    with pytest.raises(
        SourceError, match=r"huggingface metadata cannot be understood .*: write the file anew"
    ) as caught:
        parquet(tmp_path / "x.parquet", GOOD, described).list_images()
    assert_one_line(caught.value)


@pytest.mark.parametrize("described", [b"{}", b'{"info": {}}', b'{"info": {"features": {"label": ["x"]}}}'])
def test_parquet_metadata_that_says_nothing_is_ignored(tmp_path: Path, described: bytes) -> None:
    assert [c for _, c, _ in listed(parquet(tmp_path / "x.parquet", GOOD, described))] == ["0", "1"]


@pytest.mark.parametrize(
    ("labels", "described", "reason"),
    [
        ([0, 2], names("a", "b"), "its label 2 is none of the 2 names in the metadata"),
        ([0, -1], names("a", "b"), "no label"),
        ([0, -2], names("a", "b"), "its label -2 is negative"),
        ([0, -7], None, "its label -7 is negative"),
        ([0, None], None, "no label"),
    ],
)
def test_parquet_labels_that_mean_nothing_are_listed_as_refused(
    tmp_path: Path, labels: list[int | None], described: bytes | None, reason: str
) -> None:
    source = parquet(tmp_path / "x.parquet", {**GOOD, "label": labels}, described)
    assert refused(source) == [reason] and len(source.listing.images) == 1


@pytest.mark.parametrize("cell", [None, {"bytes": None, "path": "x"}, {"bytes": b"", "path": "x"}])
def test_parquet_images_without_bytes_are_listed_as_refused(tmp_path: Path, cell: dict[str, Any] | None) -> None:
    source = parquet(tmp_path / "x.parquet", {**GOOD, "image": pa.array([CELL, cell], IMAGE)})
    assert refused(source) == ["no bytes"]


def test_parquet_columns_of_the_same_name_are_refused(tmp_path: Path) -> None:
    table = pa.table([GOOD["image"], GOOD["label"], GOOD["label"]], ["image", "label", "label"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="has several columns 'label': keep the one of the labels"):
        ParquetSource(tmp_path / "x.parquet").list_images()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"label,image\n", bytes(4096), b"PAR1" + bytes(64) + b"PAR1"])
def test_what_is_no_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.parquet is no whole parquet file \(.+\): fetch it again") as caught:
        ParquetSource(tmp_path / "x.parquet").list_images()
    assert_one_line(caught.value)


def test_no_byte_of_a_parquet_file_can_be_wrong_without_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet(path, GOOD, names("a", "b"))
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            refused(ParquetSource(path))
        except SourceError as error:
            assert str(error)


# --- ground truth ------------------------------------------------------------------------------------------------

HEADER = b"ImageId,PredictionString\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no label for 6 images, the first is ILSVRC2012_val_00000001: complete"),
        (HEADER, "has no label for 6 images"),
        (b"ImageId\n" + NAMES[0].encode(), r"cannot be read \(KeyError\('PredictionString'\)\): give"),
        (b"id,label\na,b\n", r"cannot be read \(KeyError\('ImageId'\)\): give"),
        (HEADER + b"".join(f"{name}\n".encode() for name in NAMES), "holds '', which is no WordNet id: give"),
        (HEADER + b"".join(f"{name},cat 1 2\n".encode() for name in NAMES), "holds 'cat', which is no WordNet id"),
        (bytes(range(256)) * 40, "cannot be read .*: give"),
        (b"\0" * 4096, "cannot be read .*: give|has no label for 6 images"),
        (HEADER + b"x" * 1_000_000, r"cannot be read \(Error\('field larger than field limit .*: give"),
        (HEADER + b"a,b\n" * 10 + b'"', "has no label for 6 images"),
    ],
)
def test_tables_that_are_not_kaggles_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert_labels_refused(tmp_path, "LOC_val_solution.csv", content, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 labels for 6 images: give"),
        (b"\xff\xfe\0", "cannot be read .*: give"),
        (b"x" * 1_000_000, r"holds 'xxxxxxxxxxxx\.\.\.xxxxxxxxxxxxx', which is no WordNet id"),
        ("\n".join(TRUE[:5]).encode(), "has 5 labels for 6 images: give"),
    ],
)
def test_lists_that_are_not_of_wordnet_ids_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert_labels_refused(tmp_path, "val.txt", content, message)


def devkit(tmp_path: Path, truth: bytes | None = None, meta: bytes | None = None) -> dict[str, bytes]:
    folder = make_devkit(tmp_path) / "data"
    found = {META: meta or (folder / META).read_bytes(), TRUTH: truth or (folder / TRUTH).read_bytes()}
    return {f"ILSVRC2012_devkit_t12/data/{name}": data for name, data in found.items()}


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (b"1\n2\n", "has 2 labels for 6 images: give"),
        (b"1\n2\n3\n1\n2\nx\n", r"holds x, which is no class of meta\.mat: give"),
        (b"1\n2\n3\n1\n2\n0\n", r"holds 0, which is no class of meta\.mat: give"),
        (b"1\n2\n3\n1\n2\n1001\n", r"holds 1001, which is no class of meta\.mat: give"),
        (b"9" * 100_000, r"holds 9{40}, which is no class"),
        (b"\xff\xfe", r"holds \\xff\\xfe, which is no class"),
    ],
)
@pytest.mark.parametrize("kind", ["w", "w:gz"])
def test_devkits_with_another_ground_truth_are_refused(tmp_path: Path, truth: bytes, message: str, kind: str) -> None:
    content = tar_bytes(devkit(tmp_path, truth), kind)
    assert_labels_refused(tmp_path, "devkit.tar" if kind == "w" else "devkit.tar.gz", content, message)


@pytest.mark.parametrize("meta", [b"MATLAB 5.0 MAT-file" + b" " * 109 + b"\0\1IM" + b"\xff" * 64, b"no matrix", b"\0"])
def test_devkits_whose_classes_cannot_be_read_are_refused(tmp_path: Path, meta: bytes) -> None:
    content = tar_bytes(devkit(tmp_path, meta=meta))
    assert_labels_refused(tmp_path, "devkit.tar", content, r"meta\.mat cannot be read \(.+\): give the devkit")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no tar", "cannot be read .*: give"),
        ("empty", "cannot be read .*: give"),
        ("nothing inside", rf"has no {TRUTH}, .*: give"),
        ("truncated", "cannot be read .*: give"),
        ("links", rf"has no {TRUTH}, .*: give"),
    ],
)
def test_archives_that_hold_no_devkit_are_refused(tmp_path: Path, how: str, message: str) -> None:
    whole = tar_bytes(devkit(tmp_path), "w:gz")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in (TRUTH, META):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    content = {
        "no tar": b"text " * 999,
        "empty": b"",
        "nothing inside": tar_bytes({"readme": b""}, "w:gz"),
        "truncated": whole[: len(whole) // 2],
        "links": buffer.getvalue(),
    }[how]
    assert_labels_refused(tmp_path, "devkit.tar.gz", content, message)


@pytest.mark.parametrize("name", ["val.txt", "LOC.csv", "devkit.tar"])
def test_labels_of_many_gigabytes_are_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 20 << 30)
    assert_labels_refused(tmp_path, name, None, "holds 21,474,836,480 bytes, too many for labels: give")


def test_a_devkit_that_unpacks_without_end_is_not_unpacked(tmp_path: Path) -> None:
    info = tarfile.TarInfo("zeros")
    info.size = 1 << 40
    content = gzip.compress(info.tobuf() + bytes(1 << 20), mtime=0)
    assert_labels_refused(tmp_path, "devkit.tar.gz", content, r"holds 1,099,511,\d\d\d,\d\d\d bytes, too many")


def assert_labels_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    train, val = make_folder(tmp_path / "train", classes=IDS), make_flat(tmp_path / "val")
    with pytest.raises(SourceError, match=rf"^data\.val_labels=.*{message}") as caught:
        FolderSource(train, val, tmp_path / name).list_images()
    assert_one_line(caught.value)


# --- tars ----------------------------------------------------------------------------------------------------------


def tar_source(path: Path) -> TarSource:
    return TarSource(path, unpacked=path.parent / "unpacked")


def test_names_that_lead_elsewhere_are_labels_and_nothing_is_written(tmp_path: Path) -> None:
    written = pictures(["/tmp/cat/a.png", "../../dog/b.png", "x/../cat/c.png", "../d.png", "/e.png"])
    path = write_tar(tmp_path / "set.tar", written)
    source = tar_source(path)
    assert [c for _, c, _ in listed(source)] == ["cat", "dog", "cat"] and refused(source) == []
    assert list(tmp_path.rglob("*")) == [path]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "a link inside the tar, not a file"),
        (tarfile.LNKTYPE, "a link inside the tar, not a file"),
        (tarfile.FIFOTYPE, "a fifo or device inside the tar, not a file"),
        (tarfile.CHRTYPE, "a fifo or device inside the tar, not a file"),
    ],
)
def test_members_that_are_no_files_are_listed_as_refused(tmp_path: Path, kind: bytes, reason: str) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        good, other = tarfile.TarInfo("cat/a.png"), tarfile.TarInfo("cat/b.png")
        good.size, other.type, other.linkname = len(picture(0)), kind, "/etc/passwd"
        tar.addfile(good, io.BytesIO(picture(0)))
        tar.addfile(other)
    assert refused(tar_source(tmp_path / "set.tar")) == [reason]


def test_sparse_members_are_listed_as_refused(tmp_path: Path) -> None:
    """GNU's format 1.0: the map of what is there comes first among the data."""
    info = tarfile.TarInfo("GNUSparseFile.0/a.png")
    info.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "cat/a.png",
        "GNU.sparse.realsize": str(20 << 30),
    }  # fmt: skip
    info.size = 512
    with tarfile.open(tmp_path / "set.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(f"1\n{20 << 30}\n0\n".encode().ljust(512, b"\0")))
        good = tarfile.TarInfo("cat/b.png")
        good.size = len(picture(0))
        tar.addfile(good, io.BytesIO(picture(0)))
    source = tar_source(tmp_path / "set.tar")
    assert refused(source) == ["a sparse file inside the tar, not a file"] and len(source.listing.images) == 1


def test_a_sparse_file_of_many_gigabytes_is_not_read(tmp_path: Path) -> None:
    make_image(tmp_path / "set" / "cat" / "a.png")
    (tmp_path / "set" / "cat" / "b.png").touch()
    os.truncate(tmp_path / "set" / "cat" / "b.png", 20 << 30)
    [reason] = refused(FolderSource(tmp_path / "set"))
    assert "21,474,836,480 bytes are more than the 1,498,764,624 of a picture of data.max_pixels" in reason
    info = tarfile.TarInfo("cat/b.png")
    info.size = 20 << 30
    (tmp_path / "set.tar").write_bytes(tar_bytes(pictures(["cat/a.png"]))[:2048].rstrip(b"\0"))
    with (tmp_path / "set.tar").open("r+b") as file:
        file.seek(1024)
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(file.tell() + info.size + 1024)
    assert len(refused(tar_source(tmp_path / "set.tar"))) == 1


def test_members_without_bytes_and_of_the_same_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for data in (picture(0), picture(1), b""):
            info = tarfile.TarInfo("cat/a.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "set.tar").write_bytes(buffer.getvalue())
    source = tar_source(tmp_path / "set.tar")
    assert refused(source) == ["no bytes"]
    assert [source.read(at) for at in list(locations(source.listing.images))[:2]] == [picture(0), picture(1)]


@pytest.mark.parametrize("content", [b"", b"text " * 999, b"\x1f\x8b" + bytes(999), b"\xff" * 5000])
def test_what_is_no_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.tar").write_bytes(content)
    with pytest.raises(SourceError, match=r"tar .*set\.tar is damaged or cut off \(.+\): fetch or write it") as caught:
        tar_source(tmp_path / "set.tar").list_images()
    assert_one_line(caught.value)


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\xff" * 11 + b"\0", b"\x80" + b"\xff" * 11, b"7" * 11 + b"\0"])
@pytest.mark.parametrize("kind", [b"0", b"x", b"L", b"S", b"V"])
def test_headers_with_impossible_sizes_are_refused_or_skipped(tmp_path: Path, size: bytes, kind: bytes) -> None:
    header = bytearray(tarfile.TarInfo("cat/a.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136], header[156:157], header[148:156] = size, kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "set.tar").write_bytes(bytes(header) + tar_bytes(pictures(["cat/b.png"])))
    try:
        assert {c for _, c, _ in listed(tar_source(tmp_path / "set.tar"))} == {"cat"}
    except SourceError as error:
        assert_one_line(error, remedy=False)


def test_headers_that_follow_each_other_without_end_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    (tmp_path / "set.tar").write_bytes((info.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")) * 2000)
    with pytest.raises(SourceError, match=r"set\.tar is damaged or cut off"):
        tar_source(tmp_path / "set.tar").list_images()


def test_an_inner_tar_whose_last_file_goes_beyond_it_is_refused(tmp_path: Path) -> None:
    cut = tar_bytes({"a.png": picture(0) * 9})[:1024]
    path = write_tar(tmp_path / "set.tar", {"cat.tar": cut, "dog.tar": tar_bytes({"b.png": picture(1)})})
    with pytest.raises(SourceError, match=r"tar cat\.tar in .*set\.tar was cut off: fetch or write it again"):
        tar_source(path).list_images()


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL_BYTES", 1 << 20)
    path, plain = tmp_path / "set.tar.gz", tmp_path / "unpacked" / "set.tar"
    path.write_bytes(gzip.compress(bytes(20 << 20), mtime=0))
    packed = path.stat().st_size
    message = (
        rf"set\.tar\.gz \({packed:,} bytes\) unpacks to more than {100 * packed:,} bytes, 100 times its size, .*: if"
    )
    with pytest.raises(SourceError, match=message) as caught:
        unpack(path, plain)
    assert_one_line(caught.value)
    assert list(plain.parent.iterdir()) == []
    monkeypatch.setattr(archives, "SMALL_BYTES", 1 << 30)
    unpack(path, plain)
    assert plain.stat().st_size == 20 << 20


@pytest.mark.parametrize("content", [b"text", b"\x1f\x8b\x08" + bytes(50), gzip.compress(bytes(9999), mtime=0)[:-9]])
def test_what_is_no_whole_gzip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.tar.gz").write_bytes(content)
    with pytest.raises(SourceError, match=r"set\.tar\.gz is damaged or cut off \(.+\): fetch it again") as caught:
        unpack(tmp_path / "set.tar.gz", tmp_path / "unpacked" / "set.tar")
    assert_one_line(caught.value)


# --- WebDataset ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ({}, "its sample has no .cls and no .json"),
        ({"cls": b""}, "no bytes"),
        ({"cls": b" \n"}, "class '' starts with '__' or is empty"),
        ({"cls": b"\xff\xfe"}, "can't decode byte"),
        ({"cls": b"a\0b"}, "has a NUL in it"),
        ({"cls": b"9" * 9999}, "Exceeds the limit"),
        ({"cls": b"x" * (1 << 21)}, r"its .cls is of 2,097,152 bytes, not a label"),
        ({"json": b""}, "no bytes"),
        ({"json": b"{"}, "Expecting property name"),
        ({"json": b"[1]"}, "its .json has none of label, cls, class"),
        ({"json": b"7"}, "its .json has none of label, cls, class"),
        ({"json": b'{"label": [7]}'}, "its .json has none of label, cls, class"),
        ({"json": b'{"label": null}'}, "its .json has none of label, cls, class"),
        ({"json": b"[" * 100_000}, "its .json is nested too deeply"),
        ({"json": b'{"label": "\\ud800"}'}, "not valid UTF-8"),
    ],
)
def test_samples_without_a_usable_label_are_listed_as_refused(
    tmp_path: Path, label: dict[str, bytes], reason: str
) -> None:
    members = {"good.jpg": picture(0), "good.cls": b"1", "bad.jpg": picture(1)}
    path = write_tar(tmp_path / "set.tar", members | {f"bad.{extension}": data for extension, data in label.items()})
    source = WebDatasetSource(path, unpacked=tmp_path)
    [found] = refused(source)
    assert reason in found and len(found) < 300 and len(source.listing.images) == 1


def test_class_ids_that_are_no_numbers_are_names(tmp_path: Path) -> None:
    labels = (b"-1", b"1.5", b"n01440764", b"zarr.json", "é".encode(), b"x" * 500)
    members = {f"{k}.{e}": d for k, label in enumerate(labels) for e, d in (("jpg", picture(k)), ("cls", label))}
    source = WebDatasetSource(write_tar(tmp_path / "set.tar", members), unpacked=tmp_path)
    assert [c.encode() for _, c, _ in listed(source)] == list(labels) and refused(source) == []


# --- images ----------------------------------------------------------------------------------------------------------


def test_a_picture_that_says_it_is_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    make_image(tmp_path / "set" / "cat" / "a.png")
    (tmp_path / "set" / "cat" / "b.png").write_bytes(png(0, 1, [b""] * 50_000, 50_000))
    source = FolderSource(tmp_path / "set")
    [reason] = refused(source)
    with pytest.raises(RefusedImage):
        source.open(list(locations(source.listing.images))[1])
    assert "limit" in reason or "pixels" in reason
