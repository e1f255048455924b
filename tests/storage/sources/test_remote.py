"""Archives at addresses: read from S3, HTTP and the hub like local ones, once, and on from where a connection broke."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from storage.index import Index
from storage.sources import SourceError, open_source, remote
from tasks.inputs.data import changed_sources, check_source, shard_artifact
from tasks.inputs.real import read_images, source_of
from tasks.inputs.stores import indexed
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import DataConfig, ImageConfig
from tests.servers import REPOSITORY, FileServer, Hub, serving
from tests.storage.sources.test_archives import picture, tar_bytes, write_tar
from tests.storage.sources.test_ground_truth import IDS, NAMES, make_devkit, pictures
from tests.storage.sources.test_parquet import write
from tests.storage.sources.test_sources import TINY, run_shard

moto = pytest.importorskip("moto.server")
pytestmark = pytest.mark.timeout(120)

BUCKET = "pictures"
IMAGES = ImageConfig(size_px=8)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits between attempts, which are as many."""
    monkeypatch.setattr(remote, "WAITS_SECONDS", (0.0,) * 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of every kind."""
    root = tmp_path_factory.mktemp("archives")
    write(root / "data" / "train-00000-of-00002.parquet", [0, 1, 0, 1, 0, 1], names=["cat", "dog"])
    write(root / "data" / "train-00001-of-00002.parquet", [1, 0], names=["cat", "dog"], first=6)
    write(root / "data" / "validation-00000-of-00001.parquet", [1, 0], names=["cat", "dog"], first=8)
    samples = {f"{k}.{e}": d for k in range(12) for e, d in (("jpg", picture(k)), ("cls", b"%d" % (k % 2)))}
    for name in ("train-000", "train-001", "val-0"):
        write_tar(root / "web" / f"{name}.tar", {f"{name}-{key}": data for key, data in samples.items()})
    plain = {f"{split}/{c}/{k}.png": picture(k) for split in ("train", "val") for c in ("a", "b") for k in range(20)}
    write_tar(root / "plain" / "x.tar", {**plain, "train/a/torn.png": picture(99)[:60], "train/a/none.png": b""})
    write_tar(root / "plain" / "y.tar.gz", {f"train/c/{k}.png": picture(k + 50) for k in range(3)}, "w:gz")
    write_tar(root / "plain" / "y2.tar", {f"val/c/{k}.png": picture(k + 60) for k in range(3)})
    tars = {f"{c}.tar": tar_bytes(pictures(f"{c}_{k}.JPEG" for k in range(3))) for c in IDS}
    write_tar(root / "ilsvrc" / "train.tar", tars)
    write_tar(root / "ilsvrc" / "val.tar", pictures(f"{name}.JPEG" for name in NAMES[::-1]))
    make_devkit(root)
    shown = {
        f"{split}/{c}/{k}.png": picture(k) for split in ("test", "train") for c in ("b", "A", "a b") for k in range(9)
    }
    for name, data in {
        **shown,
        "train/b b/.x.png": b"",
        "train/.b/0.png": picture(0),
        "train/a/b/0.png": b"",
        f"train/{IDS[0]}/torn.png": picture(99)[:60],
        f"train/{IDS[0]}/none.png": b"",
        "more/b b/0.png": picture(0),
    }.items():
        (root / "folders" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "folders" / name).write_bytes(data)
    (root / "flat").mkdir()
    for k in range(4):
        (root / "flat" / f"{k}.png").write_bytes(picture(k))
    (root / "flat.txt").write_text(f"{IDS[0]}\n{IDS[1]}\n" * 2)
    return root


@pytest.fixture(scope="module")
def s3(folder: Path) -> Iterator[str]:
    """The archives in a bucket, known as users make it known, by the environment."""
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name, value in {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            patch.setenv(name, value)
        files = fsspec.filesystem("s3")
        files.mkdir(BUCKET)
        for file in folder.rglob("*.*"):
            if file.suffix in (".tar", ".gz", ".parquet", ".png"):
                files.pipe_file(f"{BUCKET}/{file.relative_to(folder)}", file.read_bytes())
        yield f"s3://{BUCKET}"
        type(files).clear_instance_cache()
    server.stop()


KINDS = {
    "a pattern of tars, one gzipped": {"source": "tar", "path": "{}/plain/*", "max_refused": 0.1},
    "a range of shards": {
        "source": "webdataset",
        "path": "{}/web/train-{{000..001}}.tar",
        "val_path": "{}/web/val-0.tar",
    },
    "a folder of parquet files": {"source": "parquet", "path": "{}/data"},
    "class folders": {"source": "folder", "path": "{}/folders", "max_refused": 0.1},
    "classes alone, and a flat folder": {
        "source": "folder",
        "path": "{}/folders/train",
        "val_path": "{}/flat",
        "val_labels": "{folder}/flat.txt",
        "max_refused": 0.1,
    },
    "ILSVRC's tars": {
        "source": "tar",
        "path": "{}/ilsvrc/train.tar",
        "val_path": "{}/ilsvrc/val.tar",
        "val_labels": "{folder}/ILSVRC2012_devkit_t12",
    },
}


def at(base: str | Path, folder: Path, kind: str) -> DataConfig:
    """A kind of data set at an address, or in a folder."""
    return DataConfig.model_validate(
        {
            name: value.format(base, folder=folder) if isinstance(value, str) else value
            for name, value in KINDS[kind].items()
        }
    )


def read(root: Path, data: DataConfig) -> tuple[Index, np.ndarray, list[dict[str, str]]]:
    """The index, all pixels, and what was refused."""
    index, artifact = run_shard(root, data), shard_artifact(root, data)
    refused = pq.read_table(artifact.path / "index" / "refused.parquet").drop_columns("path").to_pylist()
    return index, read_images(indexed(artifact)[0], index, np.arange(len(index.table)), IMAGES), refused


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_a_bucket_is_the_same_data_set_as_on_the_disk(
    tmp_path: Path, folder: Path, s3: str, kind: str
) -> None:
    index, pixels, refused = read(tmp_path / "local", at(folder, folder, kind))
    far, far_pixels, far_refused = read(tmp_path / "far", at(s3, folder, kind))
    assert far.identity == index.identity and far.classes == index.classes and len(far.table) >= 9
    assert np.array_equal(far_pixels, pixels) and far_refused == refused
    assert far.table.drop_columns("path").equals(index.table.drop_columns("path"))
    artifact = shard_artifact(tmp_path / "far", at(s3, folder, kind))
    assert artifact.is_done() and list(changed_sources(artifact, lambda done, total: None)) == []


def test_one_half_may_be_local(tmp_path: Path, folder: Path, s3: str) -> None:
    near, far = (at(base, folder, "a range of shards") for base in (folder, s3))
    index, pixels, _ = read(tmp_path / "near", near)
    for k, data in enumerate(
        (near.model_copy(update={"val_path": far.val_path}), far.model_copy(update={"val_path": near.val_path}))
    ):
        mixed, mixed_pixels, _ = read(tmp_path / str(k), data)
        assert mixed.identity == index.identity and np.array_equal(mixed_pixels, pixels)


# --- HTTP and the hub: what is asked for -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["a range of shards", "ILSVRC's tars"])
def test_an_archive_is_read_once_and_then_the_images_that_are_wanted(tmp_path: Path, folder: Path, kind: str) -> None:
    with serving(FileServer(folder)) as server:
        data = at(server.address, folder, kind)
        index, artifact = run_shard(tmp_path, data), shard_artifact(tmp_path, data)
        for path in set(index.table["path"].to_pylist()):
            assert server.bytes_of(path) == (folder / server_path(path)).stat().st_size
        server.asked.clear()
        rows = index.rows("train")[::3]
        read_images(indexed(artifact)[0], index, rows, IMAGES)
        lengths = [at.length for at in index.locations(rows)]
        assert sorted(sent for _, _, sent in server.asked) == sorted(lengths)
        server.asked.clear()
        assert run_shard(tmp_path, data).identity == index.identity
        assert {method for method, _, _ in server.asked} == {"HEAD"}


def server_path(path: str) -> str:
    """A location's path below the server's folder."""
    return (
        re.sub(r"^http://[^/]+/", "", path)
        if path.startswith("http")
        else next(
            f"{place}/{path}" for place in ("web", "ilsvrc") if path.startswith(("train-", "val-")) == (place == "web")
        )
    )


def test_one_changed_archive_is_read_again_alone(tmp_path: Path) -> None:
    for k in range(2):
        write_tar(tmp_path / f"{k}.tar", pictures(f"{c}/{i}{k}.png" for c in "ab" for i in range(9)))
    with serving(FileServer(tmp_path)) as server:
        data = DataConfig(source="tar", path=f"{server.address}/{{0..1}}.tar")
        first = run_shard(tmp_path / "runs", data)
        write_tar(tmp_path / "1.tar", pictures(f"{c}/{i}1.png" for c in "ab" for i in range(10)))
        server.asked.clear()
        assert len(run_shard(tmp_path / "runs", data).table) == len(first.table) + 2
        assert server.bytes_of("0.tar") == 0 < server.bytes_of("1.tar")


def test_parquet_files_of_the_hub(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Hub(folder)) as hub:
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": hub.address, "token": False})
        index, pixels, _ = read(tmp_path / "near", at(folder, folder, "a folder of parquet files"))
        for path in ("data/*.parquet", "data"):
            data = DataConfig(source="parquet", path=f"hf://datasets/{REPOSITORY}/{path}")
            far, far_pixels, _ = read(tmp_path / "far", data)
            assert far.identity == index.identity and np.array_equal(far_pixels, pixels)


# --- what fails ------------------------------------------------------------------------------------------


def test_an_answer_that_breaks_off_now_and_then_is_asked_for_again(tmp_path: Path, folder: Path) -> None:
    near = run_shard(tmp_path / "near", at(folder, folder, "a range of shards"))
    with serving(FileServer(folder, fails=lambda number: number % 3 == 1)) as server:
        far, _, _ = read(tmp_path / "far", at(server.address, folder, "a range of shards"))
        assert far.identity == near.identity


def test_a_run_goes_on_after_the_archives_that_were_read(tmp_path: Path, folder: Path) -> None:
    near = run_shard(tmp_path / "near", at(folder, folder, "a range of shards"))
    with serving(FileServer(folder)) as server:
        server.fails = lambda number: any("train-001" in path and m == "GET" for m, path, _ in server.asked)
        data = at(server.address, folder, "a range of shards")
        with pytest.raises(SourceError, match=r"^http://\S+val-0.tar failed 5 times \(.+\): check the connection; the"):
            run_shard(tmp_path / "far", data)
        server.fails = lambda number: False
        server.asked.clear()
        assert run_shard(tmp_path / "far", data).identity == near.identity
        assert server.bytes_of("train-000.tar") == server.bytes_of("train-001.tar") == 0


def test_a_server_that_is_gone_between_stages_is_one_line_and_no_refused_image(tmp_path: Path, folder: Path) -> None:
    with serving(FileServer(folder)) as server:
        data = at(server.address, folder, "a range of shards")
        index, artifact = run_shard(tmp_path, data), indexed(shard_artifact(tmp_path, data))[0]
        rows = index.rows("train")
        server.fails = lambda number: True
        with pytest.raises(
            SourceError, match=r"^http://\S+ failed 5 times \(.+\): check the connection; the next"
        ) as told:
            read_images(artifact, index, rows, IMAGES)
        assert "\n" not in str(told.value)
        server.fails = lambda number: False
        assert len(read_images(artifact, index, rows, IMAGES)) == len(rows)


WRONG = {
    "s3://absent-bucket/x.tar": r"is not there",
    "s3://pictures/absent.tar": r"is not there \(.*\): check the address",
    "s3://pictures/web/train-{000..002}.tar": r"train-002.tar is not there",
    "s3://pictures/nothing/*.tar": r"no .tar .* files at s3://pictures/nothing/\*.tar: give a file",
    "s3://pictures/nothing": r"is not there|no .tar .* files at",
    "http://127.0.0.1:9/x.tar": r"failed 5 times \(.*\): check the connection",
    "foo://x/y.tar": r"cannot be opened \(Protocol not known: foo\): give a path, or an address that fsspec knows",
    "gs://x/y.tar": r"cannot be read without another package \(Please install gcsfs.*\): install it",
}


@pytest.mark.parametrize(("address", "told"), WRONG.items())
def test_wrong_addresses_are_told_before_a_run(tmp_path: Path, s3: str, address: str, told: str) -> None:
    recipe = Recipe.model_validate({**TINY, "data": {"source": "tar", "path": address}})
    with pytest.raises(SourceError, match=told) as error:
        check_source(recipe, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("status", "told"), [(403, "may not be read"), (404, "is not there"), (503, "failed 5 times")])
def test_a_server_that_refuses_is_asked_again_only_where_that_may_help(tmp_path: Path, status: int, told: str) -> None:
    with serving(FileServer(tmp_path, status=status)) as server:
        with pytest.raises(SourceError, match=told):
            run_shard(tmp_path, DataConfig(source="tar", path=f"{server.address}/x.tar"))
        assert (len(server.asked) > 5) == (status == 503)


def test_credentials_are_told_of(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(fsspec.config.conf, "s3", {"skip_instance_cache": True})
    with pytest.raises(SourceError, match=r"^s3://\S+ may not be read \(.*credentials\): set AWS_ACCESS_KEY_ID and"):
        run_shard(tmp_path, DataConfig(source="tar", path=f"{s3}/web/val-0.tar"))


def test_a_package_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3", raising=False)
    with pytest.raises(SourceError, match=r"^s3://b/x.tar cannot be read without .*: pip install 'ddoq\[s3\]'$"):
        run_shard(tmp_path, DataConfig(source="tar", path="s3://b/x.tar"))


def test_a_server_without_byte_ranges_is_told_of(tmp_path: Path, folder: Path) -> None:
    with serving(FileServer(folder)) as server:
        data = at(server.address, folder, "a range of shards")
        index, artifact = run_shard(tmp_path, data), indexed(shard_artifact(tmp_path, data))[0]
        server.ranges = False
        with pytest.raises(SourceError, match=r"the server knows no byte ranges: fetch the file, and give its path"):
            source_of(artifact).read(index.locations(index.rows("train"))[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"source": "imagenette", "path": "s3://b/x"},
        {"source": "cifar10", "path": "s3://b/x"},
        {"source": "tar", "path": "x", "val_path": "y", "val_labels": "https://h/devkit.tar.gz"},
    ],
)
def test_addresses_of_what_is_no_archive_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"is an address: fetch it, and give a path"):
        DataConfig.model_validate(settings)


def test_caches_that_are_not_made_for_threads_are_refused() -> None:
    with pytest.raises(ValueError, match=r"is a chain of file systems: give the last address alone"):
        DataConfig(source="tar", path="blockcache::s3://b/x.tar")


def test_local_paths_ask_nobody(tmp_path: Path, folder: Path) -> None:
    source = open_source("tar", str(folder / "plain" / "x.tar"), unpacked=tmp_path / "unpacked")
    assert source.scans() == [] and len(source.listing.images) == 82
