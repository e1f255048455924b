"""Exported sets, read back by the tools they are for."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddoq_core.train.accuracy import predict
from ddoq_core.train.networks import load_classifier
from storage.artifact import Artifact, NotDone
from tasks.export.collect import collect
from tasks.export.formats import WRITERS, export
from tasks.export.handout import Handout
from tasks.inputs.stores import distilled_set
from tests.tasks.conftest import CLASSES, IPC, SIZE_PX, decode_of


@pytest.fixture
def distilled(parents: dict[str, Artifact]) -> Handout:
    return collect(parents["decode"], "mass", parents["teacher"])


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def pixels(image: Any) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


def test_a_set_is_collected_with_weights_and_plain_logits(parents: dict[str, Artifact], distilled: Handout) -> None:
    assert distilled.classes == CLASSES
    np.testing.assert_allclose(distilled.weights, [k / 3 for k in range(1, 6)] * 2)
    assert distilled.labels.tolist() == [0] * IPC + [1] * IPC and distilled.centroids.tolist() == [*range(IPC)] * 2
    teacher = load_classifier(parents["teacher"].path / "model")
    assert distilled.logits is not None
    np.testing.assert_array_equal(distilled.logits, predict(teacher, distilled.images))
    assert distilled.card["W2 of the mass-weighted prototypes, mean over classes"] == 2.0


def test_folders_sort_as_labels_do() -> None:
    names = tuple(f"n{k}" for k in range(1000, 0, -1))
    nothing = np.zeros(0)
    many = Handout(nothing, nothing, nothing, nothing, names)  # type: ignore[arg-type]
    folders = [many.folder_of(label) for label in range(1000)]
    assert sorted(folders) == folders and folders[7] == "007-n993"


def test_no_class_name_leads_out_of_the_folder_or_into_a_formula(distilled: Handout, tmp_path: Path) -> None:
    names, folders = ("../../up", "=1+1"), ["0-%2E%2E%2F%2E%2E%2Fup", "1-=1+1"]
    place = tmp_path / "a/b/set"
    export(replace(distilled, classes=names), "imagefolder", place)
    assert [path.name for path in (tmp_path / "a").rglob("*") if path.is_dir()] == ["b", "set", "train", *folders]
    with (place / "train/metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {"../../up", "'=1+1"}
    assert all((place / "train" / row["file_name"]).is_file() for row in rows)


def test_an_image_folder_is_read_by_torchvision_and_datasets(distilled: Handout, tmp_path: Path) -> None:
    from datasets import load_dataset
    from torchvision.datasets import ImageFolder

    export(distilled, "imagefolder", tmp_path / "out")
    folder = ImageFolder(str(tmp_path / "out/train"))
    assert [label for _, label in folder] == distilled.labels.tolist()
    with (tmp_path / "out/train/metadata.csv").open() as file:
        assert list(csv.DictReader(file).fieldnames or []) == ["file_name", "label", "class", "weight", "centroid"]
    rows = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), split="train")
    for row, image, label, weight in zip(rows, distilled.images, distilled.labels, distilled.weights, strict=True):
        np.testing.assert_array_equal(pixels(row["image"]), image)
        assert row["label"] == label and row["class"] == CLASSES[label] and row["weight"] == weight
    np.testing.assert_array_equal(np.load(tmp_path / "out/soft_labels.npy"), distilled.logits)


def test_a_hub_folder_is_read_by_datasets(distilled: Handout, tmp_path: Path) -> None:
    from datasets import load_dataset

    export(distilled, "huggingface", tmp_path / "out")
    rows = load_dataset(str(tmp_path / "out"), split="train")
    assert rows.features["label"].names == list(CLASSES)
    alone = load_dataset("parquet", data_files=str(tmp_path / "out/data/*.parquet"), split="train")
    assert alone.features == rows.features, "the file says it without its card"
    assert distilled.logits is not None
    for k, row in enumerate(rows):
        np.testing.assert_array_equal(pixels(row["image"]), distilled.images[k])
        assert (row["label"], row["weight"]) == (distilled.labels[k], distilled.weights[k])
        np.testing.assert_allclose(row["logits"], distilled.logits[k], rtol=1e-6)


def test_a_tar_is_read_by_webdataset(distilled: Handout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import webdataset

    monkeypatch.setattr("tasks.export.webdataset.IMAGES_PER_TAR", 7)
    export(distilled, "webdataset", tmp_path / "out")
    tars = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert len(tars) == 2
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    assert distilled.logits is not None and len(samples) == 2 * IPC
    for k, sample in enumerate(samples):
        np.testing.assert_array_equal(sample["png"], distilled.images[k])
        assert sample["cls"] == distilled.labels[k] and sample["json"]["weight"] == distilled.weights[k]
        np.testing.assert_array_equal(sample["logits.npy"], distilled.logits[k])


def test_tensors_are_read_by_torch(distilled: Handout, tmp_path: Path) -> None:
    export(distilled, "torch", tmp_path / "out")
    found = torch.load(tmp_path / "out/distilled.pt", weights_only=True)
    np.testing.assert_array_equal(found["images"].permute(0, 2, 3, 1), distilled.images)
    np.testing.assert_array_equal(found["labels"], distilled.labels)
    np.testing.assert_array_equal(found["logits"], distilled.logits)
    torch.testing.assert_close(found["weights"].double(), torch.from_numpy(distilled.weights), rtol=1e-6, atol=0)


def shown(images: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """As DD-Ranking's ddranking/utils/data.py shows real images to a student."""
    from torchvision.transforms import Compose, Normalize, ToTensor

    return torch.stack([Compose([ToTensor(), Normalize(mean, std)])(image) for image in images])


def test_dd_ranking_gets_cifars_own_normalisation(distilled: Handout, tmp_path: Path) -> None:
    cifar = replace(distilled, card={**distilled.card, "source": {"kind": "cifar10"}})
    export(cifar, "dd-ranking", tmp_path / "out")
    images = torch.load(tmp_path / "out" / "images.pt", weights_only=True)
    expected = shown(distilled.images, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-6)


def test_dd_ranking_gets_tensors_class_after_class(distilled: Handout, tmp_path: Path) -> None:
    export(distilled, "dd-ranking", tmp_path / "out")
    images, labels = (torch.load(tmp_path / "out" / name, weights_only=True) for name in ("images.pt", "labels.pt"))
    np.testing.assert_allclose(images, shown(distilled.images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), rtol=1e-5)
    np.testing.assert_array_equal(labels, distilled.logits)
    assert (tmp_path / "out/train/0-n01440764/0.png").exists()


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_has_a_card_and_lives_without_soft_labels(
    form: str, parents: dict[str, Artifact], tmp_path: Path
) -> None:
    plain = collect(parents["decode"], "sqrt", None)
    assert plain.logits is None
    export(plain, form, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert (
        "Licence" in card
        and "derive from: folder photos." in card
        and "somebody" not in card
        and '"weights": "sqrt"' in card
    )
    settings = json.loads(card.split("```json")[1].split("```")[0])
    assert settings["pictures"] == {"method": "diffusion", "strength": 0.7}
    assert "10 synthetic pictures of 2 classes, 8 px" in card and "mosaic" not in card


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("medoid", "10 real pictures of 2 classes, 8 px, chosen by"),
        ("random", "10 real pictures of 2 classes, 8 px, drawn at random"),
        ("given", "10 pictures of 2 classes, 8 px, of a set that\nothers made"),
        ("diffusion", "10 synthetic pictures of 2 classes, 8 px, made by"),
    ],
)
def test_a_card_says_whose_pictures_they_are(method: str, told: str, distilled: Handout, tmp_path: Path) -> None:
    handout = replace(distilled, card={**distilled.card, "pictures": {"method": method}})
    export(handout, "torch", tmp_path / "out")
    assert told in (tmp_path / "out/README.md").read_text()


def test_of_mosaics_the_tiles_are_handed_out_as_students_see_them(parents: dict[str, Artifact], tmp_path: Path) -> None:
    mosaics = decode_of(parents["shard"], CLASSES, IPC, SIZE_PX, mosaic=2)
    tiles = collect(mosaics, "mass", parents["teacher"])
    seen = distilled_set(mosaics, "mass")
    np.testing.assert_array_equal(tiles.images, seen.images)
    np.testing.assert_array_equal(tiles.weights, seen.weights)
    np.testing.assert_array_equal(
        tiles.logits, predict(load_classifier(parents["teacher"].path / "model"), seen.images)
    )
    export(tiles, "dd-ranking", tmp_path / "out")
    assert torch.load(tmp_path / "out/images.pt", weights_only=True).shape == (2 * 4 * IPC, 3, SIZE_PX, SIZE_PX)
    card = (tmp_path / "out/README.md").read_text()
    assert "40 synthetic pictures of 2 classes, 8 px" in card
    assert "the tiles of 10 mosaics of 2×2" in card and "of 4 px each, brought up to 8 px bilinearly" in card


def test_what_is_there_is_not_overwritten(distilled: Handout, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(distilled, "torch", tmp_path / "out")
    with pytest.raises(ValueError, match="is not an empty folder"):
        export(distilled, "torch", tmp_path / "out")
    with pytest.raises(ValueError, match="unknown format 'zip': there are imagefolder"):
        export(distilled, "zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_export_that_fails_leaves_nothing(
    distilled: Handout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError("no space left on device")

    monkeypatch.setattr(Handout, "png_of", full)
    with pytest.raises(OSError, match="no space left"):
        export(distilled, "imagefolder", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_only_finished_pictures_are_exported(parents: dict[str, Artifact]) -> None:
    with pytest.raises(NotDone, match="is no finished artifact of the stage decode"):
        collect(parents["teacher"], "sqrt", None)
    (parents["decode"].path / "record.json").unlink()
    with pytest.raises(NotDone, match="is no finished artifact of the stage decode"):
        collect(parents["decode"], "sqrt", None)
