"""Tars of every kind, read by byte range: each image comes back bit-equal, and damage is named."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from storage.sources import FolderSource, Source, SourceError, TarSource, WebDatasetSource, unpack
from storage.sources.listing import locations
from storage.sources.places import named_files
from tasks.inputs.data import check_source, shard_artifact
from tasks.inputs.real import source_of
from tasks.inputs.stores import indexed
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import DataConfig
from tasks.shard import shard as shard_task
from tests.places import SHARED
from tests.storage.sources.test_sources import TINY, listed, make_image

DATA = SHARED / "data"
needs_shared = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data at {DATA}: set DDOQ_SHARED")


def picture(k: int) -> bytes:
    """An image file that differs from those of other numbers."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(k).integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def tar_bytes(members: Mapping[str, bytes], kind: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=kind) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes], kind: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members, kind))
    return path


def pictures(names: Iterable[str]) -> dict[str, bytes]:
    return {name: picture(k) for k, name in enumerate(names)}


def assert_bit_equal(source: Source, written: Mapping[str, bytes]) -> None:
    """Every listed image, read by its location, holds the bytes that were written under its name."""
    found = list(locations(source.listing.images))
    assert {at.member: source.read(at) for at in found} == written
    assert all(source.open(at).size == (8, 8) for at in found)


def tar_source(path: Path, **more: Path) -> TarSource:
    return TarSource(path, **more, unpacked=path.parent / "unpacked")


# --- plain tars ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["", "./", "data/", "a/b/"])
def test_a_tar_of_class_folders_with_splits(tmp_path: Path, above: str) -> None:
    written = pictures(f"{above}{s}/{c}/{i}.png" for s in ("train", "val") for c in ("cat", "dog") for i in range(2))
    path = write_tar(tmp_path / "set.tar", {f"{above}train/README.png": b"stray", f"{above}notes.txt": b"", **written})
    source = tar_source(path)
    assert_bit_equal(source, written)
    expected = [(s, c) for s in ("train", "val") for c in ("cat", "dog") for _ in range(2)]
    assert [(s, c) for _, c, s in listed(source)] == expected
    assert listed(source)[0][0] == f"set.tar: {above}train/cat/0.png"


def test_a_tar_of_class_folders_without_splits(tmp_path: Path) -> None:
    written = pictures(["cat/a.png", "dog/b.png"])
    source = tar_source(write_tar(tmp_path / "set.tar", written))
    assert_bit_equal(source, written)
    assert [(c, s) for _, c, s in listed(source)] == [("cat", ""), ("dog", "")]


def test_long_names_and_hidden_files(tmp_path: Path) -> None:
    written = pictures([f"train/cat/{'x' * 150}.png", f"val/{'y' * 120}/ü.png"])
    source = tar_source(
        write_tar(tmp_path / "set.tar", {**written, "train/cat/._a.png": b"fork", "train/.cache/a.png": b""})
    )
    assert_bit_equal(source, written)


@pytest.mark.parametrize("place", ["folder", "pattern", "range"])
def test_several_tars(tmp_path: Path, place: str) -> None:
    written = pictures(f"{s}/cat/{i}.png" for s in ("train", "val") for i in range(2))
    for k, (name, data) in enumerate(written.items()):
        write_tar(tmp_path / "tars" / f"part-{k + 8:02d}.tar", {name: data})
    end = {"folder": "", "pattern": "part-*.tar", "range": "part-{08..11}.tar"}[place]
    assert_bit_equal(tar_source(tmp_path / "tars" / end), written)


def test_a_gap_in_a_range_and_a_pattern_without_files_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a-0.tar", {})
    with pytest.raises(SourceError, match=r"1 of 2 files of .* are missing, the first is .*a-1\.tar"):
        named_files(tmp_path / "a-{0..1}.tar", (".tar",))
    with pytest.raises(SourceError, match=r"no \.tar files at .*b-\*\.tar: give"):
        named_files(tmp_path / "b-*.tar", (".tar",))


def test_a_tar_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no images \(.*\) in class folders inside .*set\.tar"):
        tar_source(write_tar(tmp_path / "set.tar", pictures(["a.png"]))).list_images()


def test_the_same_file_has_the_same_hash_in_a_folder_and_in_a_tar(tmp_path: Path) -> None:
    path = make_image(tmp_path / "cat" / "0.png")
    tar = tar_source(write_tar(tmp_path / "set.tar", {"cat/0.png": path.read_bytes()}))
    hashes = {source.hash_checked(next(locations(source.listing.images))) for source in (tar, FolderSource(tmp_path))}
    assert len(hashes) == 1


# --- ImageNet's own tars ------------------------------------------------------------------------------------


def test_a_tar_of_one_tar_per_class_is_indexed_in_place(tmp_path: Path) -> None:
    ids = ("n01440764", "n01443537")
    inner = {c: {f"{c}_{i}.png": picture(int(c[1:]) + i) for i in range(3)} for c in ids}
    outer = write_tar(tmp_path / "ILSVRC2012_img_train.tar", {f"{c}.tar": tar_bytes(inner[c]) for c in ids})
    source = tar_source(outer)
    assert_bit_equal(source, {f"{c}.tar/{name}": data for c in ids for name, data in inner[c].items()})
    assert [c for _, c, _ in listed(source)] == [c for c in ids for _ in range(3)]
    whole = outer.read_bytes()
    for at in locations(source.listing.images):
        assert whole[at.offset : at.offset + at.length] == source.read(at)


def test_a_folder_of_tars_called_by_wordnet_ids(tmp_path: Path) -> None:
    for k, c in enumerate(("n01440764", "n01443537")):
        write_tar(tmp_path / "train" / f"{c}.tar", {f"{c}_1.png": picture(k)})
    assert [c for _, c, _ in listed(tar_source(tmp_path / "train"))] == ["n01440764", "n01443537"]


def test_an_inner_tar_without_an_end_is_read_no_further_than_it_goes(tmp_path: Path) -> None:
    cut = tar_bytes({"a.png": picture(0)})[:1024]  # header and data, no end blocks
    source = tar_source(write_tar(tmp_path / "set.tar", {"cat.tar": cut, "dog.tar": tar_bytes({"b.png": picture(1)})}))
    assert [(c, name.rsplit("/")[-1]) for name, c, _ in listed(source)] == [("cat", "a.png"), ("dog", "b.png")]


# --- gzipped -------------------------------------------------------------------------------------------------


def test_a_gzipped_tar_is_unpacked_once_into_the_artifact(tmp_path: Path) -> None:
    written = pictures(f"{s}/{c}/{i}.png" for s in ("train", "val") for c in ("cat", "dog") for i in range(2))
    path = write_tar(tmp_path / "set.tar.gz", written, "w:gz")
    data = DataConfig(source="tar", path=str(path))
    artifact = shard_artifact(tmp_path / "runs", data)
    recipe = Recipe.model_validate({**TINY, "data": data})
    check_source(recipe, tmp_path / "runs")  # leaves it to the stage
    shard_task.fn(artifact, data)
    [plain] = (artifact.path / "unpacked").iterdir()
    assert plain.read_bytes() == tar_bytes(written)
    at = plain.stat()
    shard, index = indexed(artifact)
    for location in index.locations(np.arange(8)):
        assert source_of(shard).read(location) == written[location.member]
    check_source(recipe, tmp_path / "runs")
    assert not isinstance(shard_task.fn(artifact, data), str) and plain.stat() == at


@pytest.mark.parametrize("how", ["deleted", "flipped", "replaced"])
def test_an_unpacked_archive_that_is_no_longer_right_is_unpacked_again(tmp_path: Path, how: str) -> None:
    written = pictures(f"{s}/cat/{i}.png" for s in ("train", "val") for i in range(4))
    path = write_tar(tmp_path / "set.tgz", written, "w:gz")
    data = DataConfig(source="tar", path=str(path))
    artifact = shard_artifact(tmp_path / "runs", data)
    shard_task.fn(artifact, data)
    [plain] = (artifact.path / "unpacked").iterdir()
    before = plain.read_bytes()
    if how == "replaced":
        write_tar(path, {**written, "train/cat/new.png": picture(99)}, "w:gz")
    elif how == "deleted":
        plain.unlink()
    else:
        plain.write_bytes(before[:600] + bytes([before[600] ^ 1]) + before[601:])
    shard_task.fn(artifact, data)
    assert artifact.is_done(deep=True)
    assert len(indexed(artifact)[1].table) == (9 if how == "replaced" else 8)
    assert (plain.read_bytes() == before) == (how != "replaced")


def test_a_gzipped_tar_that_was_cut_off_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "set.tar.gz", pictures(f"cat/{i}.png" for i in range(20)), "w:gz")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SourceError, match=r"set\.tar\.gz is damaged or cut off .*: fetch it again"):
        unpack(path, tmp_path / "unpacked" / "set.tar")
    assert list((tmp_path / "unpacked").iterdir()) == []


def test_a_full_disk_ends_unpacking_with_one_line_and_the_next_run_goes_on(tmp_path: Path, small_disk: Path) -> None:
    names = [f"{s}/cat/{i}.png" for s in ("train", "val") for i in range(4)]
    path = write_tar(tmp_path / "set.tar.gz", {"notes": bytes(1 << 23), **pictures(names)}, "w:gz")
    data = DataConfig(source="tar", path=str(path))
    artifact = shard_artifact(small_disk, data)
    with pytest.raises(SourceError, match=r"^the disk of .*unpacked is full, .* make room, or give another --root$"):
        shard_task.fn(artifact, data)
    assert list((artifact.path / "unpacked").iterdir()) == [] and not artifact.is_done()
    write_tar(path, pictures(names), "w:gz")
    shard_task.fn(artifact, data)
    assert artifact.is_done(deep=True)


# --- damage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75])
def test_a_tar_that_was_cut_off_is_named(tmp_path: Path, share: float) -> None:
    path = write_tar(tmp_path / "set.tar", pictures(f"cat/{i}.png" for i in range(9)))
    data = path.read_bytes()[: 9 * 1024]  # a header and a block of data each, before the end
    path.write_bytes(data[: int(share * len(data)) // 1024 * 1024 + 700])
    with pytest.raises(SourceError, match=r"tar .*set\.tar is damaged .*: fetch or write it again"):
        tar_source(path).list_images()


def test_a_damaged_header_does_not_pass_for_the_end(tmp_path: Path) -> None:
    inner = tar_bytes(pictures(f"{i}.png" for i in range(3)))
    flipped = inner[:1100] + b"#" + inner[1101:]
    for members in (pictures(f"cat/{i}.png" for i in range(3)), {"cat.tar": flipped}):
        path = write_tar(tmp_path / "set.tar", members)
        if "cat.tar" not in members:
            data = path.read_bytes()
            path.write_bytes(data[:1100] + b"#" + data[1101:])
        with pytest.raises(SourceError, match=r"set\.tar is damaged at byte 1,\d\d\d"):
            tar_source(path).list_images()


def test_links_and_names_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind in (("cat/a.png", tarfile.REGTYPE), ("cat/b.png", tarfile.LNKTYPE), ("cat/\udce9.png", None)):
            info = tarfile.TarInfo(name)
            info.size, info.type = (0 if kind == tarfile.LNKTYPE else len(picture(0))), kind or tarfile.REGTYPE
            info.linkname = "cat/a.png" if kind == tarfile.LNKTYPE else ""
            tar.addfile(info, io.BytesIO(picture(0)))
    listing = tar_source(path).list_images()
    assert listing.images["member"].to_pylist() == ["cat/a.png"]
    reasons = {row["path"]: row["reason"] for row in listing.refused.to_pylist()}
    assert reasons == {
        "set.tar: cat/b.png": "a link inside the tar, not a file",
        r"set.tar: cat/\xe9.png": "the name is not valid UTF-8: rename it",
    }


def test_a_tar_that_shrank_after_listing_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "set.tar", pictures(f"cat/{i}.png" for i in range(3)))
    source = tar_source(path)
    *_, last = locations(source.listing.images)
    os.truncate(path, last.offset + 10)
    with pytest.raises(SourceError, match=r"set\.tar: cat/2\.png: 10 of \d+ bytes are there"):
        source.read(last)


def test_many_threads_read_more_tars_than_stay_open(tmp_path: Path) -> None:
    written = pictures(f"cat/{i}.png" for i in range(90))
    for k, (name, data) in enumerate(written.items()):
        write_tar(tmp_path / f"{k:02d}.tar", {name: data})
    source = tar_source(tmp_path)
    found = list(locations(source.listing.images))
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    start = threading.Barrier(8)

    def read_all(seed: int) -> bool:
        start.wait(timeout=30)
        order = np.random.default_rng(seed).permutation(len(found))
        return all(source.read(found[k]) == written[found[k].member] for k in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read_all, range(8)))
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_files + 64


# --- WebDataset ----------------------------------------------------------------------------------------------


def web_source(path: Path, val_path: Path | None = None) -> WebDatasetSource:
    return WebDatasetSource(path, val_path, unpacked=path.parent / "unpacked")


def test_webdataset_shards_with_numbers_names_and_json(tmp_path: Path) -> None:
    labels = [
        ("cls", b"7\n"),
        ("cls", b"007"),
        ("cls", b"tench, Tinca tinca"),
        ("json", json.dumps({"label": 12}).encode()),
    ]
    members: dict[str, bytes] = {}
    for k, (extension, label) in enumerate(labels):
        members |= {f"a/{k:03d}.{extension}": label, f"a/._{k:03d}.jpg": b"resource fork"}
        members |= {f"a/{k:03d}.jpg": picture(k), f"a/{k:03d}.txt": b"caption"}
    val = {"x.0.PNG": picture(9), "x.cls": b"7"}
    write_tar(tmp_path / "train" / "000.tar", members)
    write_tar(tmp_path / "val-0.tar", val)
    source = web_source(tmp_path / "train" / "{000..000}.tar", tmp_path / "val-*.tar")
    assert_bit_equal(
        source, {n: d for n, d in {**members, **val}.items() if n[-3:] in ("jpg", "PNG") and "._" not in n}
    )
    assert [(c, s) for _, c, s in listed(source)] == [
        ("7", "train"),
        ("7", "train"),
        ("tench, Tinca tinca", "train"),
        ("12", "train"),
        ("7", "val"),
    ]


def test_webdataset_samples_without_a_label_or_with_two_images_are_refused(tmp_path: Path) -> None:
    members = {
        "good.jpg": picture(0), "good.cls": b"1",
        "bare.jpg": picture(1),
        "two.jpg": picture(2), "two.png": picture(3), "two.cls": b"1",
        "odd.jpg": picture(4), "odd.json": b'{"caption": "a cat"}',
        "words.cls": b"1",
    }  # fmt: skip
    listing = web_source(write_tar(tmp_path / "set.tar", members)).list_images()
    assert listing.images["member"].to_pylist() == ["good.jpg"]
    assert {row["path"].removeprefix("set.tar: "): row["reason"] for row in listing.refused.to_pylist()} == {
        "bare.jpg": "its sample has no .cls and no .json",
        "two.jpg": "not the only image of its sample",
        "two.png": "not the only image of its sample",
        "odd.jpg": "its .json has none of label, cls, class",
    }


def test_refused_samples_of_a_listing_are_in_the_store_too(tmp_path: Path) -> None:
    for name in ("train", "val"):
        members = {f"{k}.{e}": d for k in range(9) for e, d in (("jpg", picture(k)), ("cls", b"1"))}
        write_tar(tmp_path / f"{name}.tar", members | {"bare.jpg": picture(99)})
    paths = {"path": str(tmp_path / "train.tar"), "val_path": str(tmp_path / "val.tar")}
    data = DataConfig(source="webdataset", **paths, max_refused=0.1)
    artifact = shard_artifact(tmp_path / "runs", data)
    shard_task.fn(artifact, data)
    rows = pq.read_table(artifact.path / "index" / "refused.parquet").to_pylist()
    assert [row["split"] for row in rows] == ["train", "val"] and artifact.record().facts["refused"] == 2
    with pytest.raises(SourceError, match="2 of 20 images cannot be shown"):
        shard_task.fn(artifact, data.model_copy(update={"max_refused": 0.05}))


# --- the real ones ---------------------------------------------------------------------------------------------


@needs_shared
def test_cifar10s_test_archive(tmp_path: Path) -> None:
    source = TarSource(DATA / "cifar10" / "cifar10-test.tar.gz", unpacked=tmp_path)
    for archive, plain in source.compressed().items():
        unpack(archive, plain)
    counts = Counter(c for _, c, _ in listed(source))
    assert list(counts.values()) == [1000] * 10 and {"airplane", "truck"} < set(counts)
    at = next(locations(source.listing.images))
    with tarfile.open(DATA / "cifar10" / "cifar10-test.tar.gz") as tar:
        member = tar.extractfile(at.member)
        assert member is not None and member.read() == source.read(at)
    assert source.open(at).size == (32, 32)


@needs_shared
def test_a_shard_of_imagenette(tmp_path: Path) -> None:
    val = DATA / "imagenette-224" / "imagenette-224-val-000.tar.gz"
    source = TarSource(val, unpacked=tmp_path)
    for archive, plain in source.compressed().items():
        unpack(archive, plain)
    found = list(locations(source.listing.images))
    assert len({c for _, c, _ in listed(source)}) == 10 and len(found) > 1900
    assert {source.open(at).mode for at in found[:50]} == {"RGB"}
