"""Data sets that torchvision downloads, from small ones in its own layouts."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

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


def test_cifar100_comes_by_its_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / CIFAR100.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)
    flat, sums = pixels.transpose(0, 3, 1, 2).reshape(9, -1), {}
    for name, part in (("train", slice(0, 6)), ("test", slice(6, 9))):
        labels = [0, 1, 2, 0, 1, 2][: len(flat[part])]
        sums[name] = write_pickle(folder / name, {"data": flat[part], "fine_labels": labels, "coarse_labels": [0] * 9})
    meta = write_pickle(folder / "meta", {"fine_label_names": ["apple", "baby", "bear"]})
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": meta})
    source = sources.open_data(DataConfig(source="cifar100", path=str(tmp_path)), tmp_path)
    assert [(c, s) for _, c, s in listed(source)] == list(
        zip(["apple", "baby", "bear"] * 3, ["train"] * 6 + ["val"] * 3, strict=True)
    )
    for at, expected in zip(locations(source.listing.images), pixels, strict=True):
        np.testing.assert_array_equal(np.asarray(source.open(at)), expected)


def test_tiny_imagenet_comes_as_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, ids = tmp_path / "tiny-imagenet-200", ("n01443537", "n01629819")
    colours = {}
    for k, name in enumerate(ids):
        (root / "train" / name / "images").mkdir(parents=True)
        (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t10\t63\t58\n")
        for i in range(3):
            Image.new("RGB", (64, 64), (90 * k, 40 * i, 0)).save(root / "train" / name / "images" / f"{name}_{i}.JPEG")
    (root / "val" / "images").mkdir(parents=True)
    for i in range(12):  # val_10 stands before val_2
        Image.new("RGB", (64, 64), (20 * i, 0, 200)).save(root / "val" / "images" / f"val_{i}.JPEG", quality=100)
        colours[i] = ids[i % 3 == 0]
    table = "".join(f"val_{i}.JPEG\t{name}\t0\t32\t44\t62\n" for i, name in colours.items())
    (root / "val" / "val_annotations.txt").write_text(table)
    (root / "test" / "images").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(root / "test" / "images" / "test_0.JPEG")
    data = DataConfig(source="tiny-imagenet", path=str(tmp_path))
    with pytest.raises(SourceError, match=r"tiny-imagenet-200 holds 18 of 110000 images: delete that folder"):
        run_shard(tmp_path / "runs", data)
    monkeypatch.setattr(sources, "TINY_IMAGES", 18)
    index = run_shard(tmp_path / "runs", data)
    assert index.classes == ids and index.counts("train") == dict.fromkeys(ids, 3)
    source, rows = sources.open_data(data, tmp_path), index.rows("val")
    for label, at in zip(index.labels(rows), index.locations(rows), strict=True):
        number = round(np.asarray(source.open(at))[0, 0, 0] / 20)
        assert index.classes[label] == colours[number]


def test_cifar10_that_is_not_as_published_is_refused(cifar10: tuple[Path, np.ndarray]) -> None:
    folder, _ = cifar10
    (folder / CIFAR10.base_folder / "test_batch").write_bytes(b"other")
    with pytest.raises(SourceError, match=r"cifar10 in .* is not as published .*: delete that folder"):
        run_shard(folder, DataConfig(source="cifar10", path=str(folder)))


@pytest.mark.parametrize(
    ("source", "archive"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("tiny-imagenet", "tiny-imagenet-200.zip"),
        ("imagenette", "imagenette2.tgz"),
    ],
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
