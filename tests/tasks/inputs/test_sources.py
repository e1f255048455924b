"""Data sets that torchvision downloads, from small ones in its own layouts."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from storage.sources import SourceError
from storage.sources.listing import locations
from tasks.inputs import sources
from tasks.recipe.settings import DataConfig
from tests.storage.sources.test_sources import listed, make_folder, run_shard

NAMES = ["airplane", "automobile", "bird"]


def write_pickle(path: Path, value: Any) -> str:
    path.write_bytes(pickle.dumps(value))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """A folder in CIFAR-10's layout, whose checksums torchvision is told, and the pixels in it."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (18, 32, 32, 3)).astype(np.uint8)
    sums = {}
    for name, part in (("data_batch_1", slice(0, 6)), ("data_batch_2", slice(6, 12)), ("test_batch", slice(12, 18))):
        flat = pixels[part].transpose(0, 3, 1, 2).reshape(6, -1)
        sums[name] = write_pickle(folder / name, {"data": flat, "labels": [0, 1, 2, 0, 1, 2]})
    meta = write_pickle(folder / "batches.meta", {"label_names": NAMES})
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in ("data_batch_1", "data_batch_2")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": meta})
    return tmp_path, pixels


def test_cifar10_comes_through_torchvision_with_its_names_and_splits(cifar10: tuple[Path, np.ndarray]) -> None:
    folder, pixels = cifar10
    source = sources.open_data(DataConfig(source="cifar10", path=str(folder)), folder)
    assert source.is_fetched()
    assert [c for _, c, _ in listed(source)] == NAMES * 6
    assert [s for _, _, s in listed(source)] == ["train"] * 12 + ["val"] * 6
    for at, expected in zip(locations(source.listing.images), pixels, strict=True):
        np.testing.assert_array_equal(np.asarray(source.open(at)), expected)
    index = run_shard(folder / "runs", DataConfig(source="cifar10", path=str(folder)))
    assert index.counts("train") == dict.fromkeys(NAMES, 4)


def test_cifar10_that_is_not_as_published_is_refused(cifar10: tuple[Path, np.ndarray]) -> None:
    folder, _ = cifar10
    (folder / CIFAR10.base_folder / "test_batch").write_bytes(b"other")
    with pytest.raises(SourceError, match=r"CIFAR-10 in .* is not as published .*: delete that folder"):
        run_shard(folder, DataConfig(source="cifar10", path=str(folder)))


@pytest.mark.parametrize(
    ("source", "archive"), [("cifar10", "cifar-10-python.tar.gz"), ("imagenette", "imagenette2.tgz")]
)
def test_without_a_network_the_archive_and_its_folder_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, archive: str
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # where nobody answers
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    data = DataConfig.model_validate({"source": source, "path": str(tmp_path / "data")})
    with pytest.raises(SourceError, match=rf"{archive} could not be downloaded .*put it into .*data by hand"):
        run_shard(tmp_path, data)


def test_imagenette_is_the_folder_that_torchvision_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "imagenette2", ("train", "val"), ("n01440764", "n02102040"))
    data = DataConfig(source="imagenette", path=str(tmp_path))
    with pytest.raises(SourceError, match=r"imagenette2 holds 16 of 13394 images: delete that folder"):
        run_shard(tmp_path / "runs", data)
    monkeypatch.setattr(sources, "IMAGENETTE_IMAGES", 16)
    assert run_shard(tmp_path / "runs", data).classes == ("n01440764", "n02102040")
