"""Sets that others made, in the layouts that they publish, read to the last pixel; and every form that we export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from storage.artifact import Artifact
from tasks.export.collect import collect
from tasks.export.formats import WRITERS, export
from tasks.recipe.settings import DecodeConfig
from tasks.sets.read import fit, open_set
from tests.tasks.conftest import CLASSES

NAMES = ("bird", "cat", "dog")
SIDE, PER_CLASS = 16, 2
MEAN, STD = (0.49, 0.48, 0.45), (0.2, 0.21, 0.22)
LABELS = np.array([2, 0, 1, 1, 2, 0])  # of no order

Read = Callable[..., "tuple[NDArray[np.uint8], Any]"]


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    """Smooth ones (N, S, S, 3), as photographs are."""
    small = np.random.default_rng(0).integers(0, 256, (len(LABELS), 4, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(x).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for x in small])


def read(path: Path, names: tuple[str, ...] = NAMES, **settings: Any) -> tuple[NDArray[np.uint8], Any]:
    """A set's pictures in the order of our classes, and the set."""
    config = DecodeConfig(method="given", path=str(path), **settings)
    fitted = fit(open_set(config), names, config.class_order)
    return np.stack([np.asarray(fitted.given.picture(int(row))) for rows in fitted.rows for row in rows]), fitted


def in_order(pictures: NDArray[np.uint8], labels: NDArray[np.int64] = LABELS) -> NDArray[np.uint8]:
    return pictures[np.argsort(labels, kind="stable")]


def normalised(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """(N, 3, S, S) float32."""
    x = (torch.from_numpy(pictures).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return x.permute(0, 3, 1, 2)


def test_class_folders(pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    for k, (image, label) in enumerate(zip(pictures, LABELS, strict=True)):
        (tmp_path / NAMES[label]).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / NAMES[label] / f"{k}.png")
    found, fitted = read(tmp_path)
    np.testing.assert_array_equal(found, in_order(pictures))
    assert fitted.ipc == PER_CLASS and fitted.given.weights is None


def test_class_folders_of_imagenet_by_id_or_name(pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    for folder, image in zip(("English springer", "n01440764"), pictures, strict=False):
        (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / folder / "0.png")
    ours = ("tench", "n02102040")
    np.testing.assert_array_equal(read(tmp_path, ours)[0], pictures[[1, 0]])


def test_numbered_folders_are_sorted_as_numbers(tmp_path: Path) -> None:
    for k in range(11):
        (tmp_path / str(k)).mkdir()
        Image.new("RGB", (4, 4), (k, 0, 0)).save(tmp_path / str(k) / "x.png")
    names = tuple("abcdefghijk")
    assert read(tmp_path, names, class_order="sorted")[0][:, 0, 0, 0].tolist() == list(range(11))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("suffix", [".pt", ".npz"])
def test_tensors_of_either_layout_by_bare_numbers(
    layout: str, suffix: str, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    x = pictures.transpose(0, 3, 1, 2) if layout == "NCHW" else pictures
    path = tmp_path / f"set{suffix}"
    if suffix == ".pt":
        torch.save({"image": torch.from_numpy(x.copy()), "target": torch.from_numpy(LABELS)}, path)
    else:
        np.savez(path, data=x, y=LABELS.astype(np.uint8))
    np.testing.assert_array_equal(read(path, class_order="sorted")[0], in_order(pictures))
    order = "dog,bird,cat"  # 0 is a dog, 1 a bird, 2 a cat
    labels = np.array([2, 0, 1])[LABELS]
    np.testing.assert_array_equal(read(path, class_order=order)[0], in_order(pictures, labels))
    (tmp_path / "names.txt").write_text("dog\nbird\ncat\n")
    np.testing.assert_array_equal(read(path, class_order=str(tmp_path / "names.txt"))[0], in_order(pictures, labels))


def test_names_for_labels_and_a_link_to_the_set(pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    labels = [NAMES[label] for label in LABELS]
    torch.save({"images": torch.from_numpy(pictures), "labels": labels}, tmp_path / "set.pt")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "link.pt").symlink_to(tmp_path / "set.pt")
    for path in (tmp_path / "set.pt", tmp_path / "there" / "link.pt"):
        np.testing.assert_array_equal(read(path)[0], in_order(pictures))


def test_normalised_floats_and_ranges_are_undone(pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    torch.save([normalised(pictures), torch.from_numpy(LABELS)], tmp_path / "data.pt")  # as IDC keeps its own
    found, _ = read(tmp_path / "data.pt", class_order="sorted", mean=MEAN, std=STD)
    np.testing.assert_array_equal(found, in_order(pictures))
    (tmp_path / "set.json").write_text(f'{{"classes": ["bird", "cat", "dog"], "mean": {[*MEAN]}, "std": {[*STD]}}}')
    np.testing.assert_array_equal(read(tmp_path / "data.pt")[0], in_order(pictures))
    torch.save(
        {"images": torch.from_numpy(pictures).double() / 127.5 - 1, "labels": LABELS.tolist()}, tmp_path / "r.pt"
    )
    found, _ = read(tmp_path / "r.pt", value_range=(-1, 1))
    np.testing.assert_array_equal(found, in_order(pictures))


def test_a_folder_of_tensors_with_logits(pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    """As DD-Ranking and DATM keep theirs: class after class, soft labels that are wrong about one picture."""
    logits = torch.full((6, 3), -2.0)
    logits[range(6), [0, 0, 1, 2, 2, 2]] = 3.0
    torch.save(torch.from_numpy(pictures), tmp_path / "images_best.pt")
    torch.save(logits, tmp_path / "labels_best.pt")
    for path in (tmp_path, tmp_path / "images_best.pt"):
        found, fitted = read(path, class_order="dog,bird,cat")
        np.testing.assert_array_equal(found, pictures[[2, 3, 4, 5, 0, 1]])
        np.testing.assert_array_equal(fitted.given.logits, logits)
        assert fitted.own.tolist() == [1, 2, 0], "of bird, cat, dog"
    torch.save(logits.softmax(1), tmp_path / "labels_best.pt")
    given = read(tmp_path, class_order="sorted")[1].given
    np.testing.assert_allclose(torch.from_numpy(given.logits).softmax(1), logits.softmax(1), rtol=1e-5)


def test_hugging_faces_parquet_and_arrow(pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    import datasets

    columns = {
        "image": [Image.fromarray(x) for x in pictures],
        "label": LABELS.tolist(),
        "weight": [0.5, 1.5, 1, 1, 1.5, 0.5],
    }
    names = ["bird", "cat", "dog"]
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=names),
        "weight": datasets.Value("float64"),
    }
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    table.save_to_disk(tmp_path / "arrow")
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "dict")
    (tmp_path / "hub").mkdir()
    table.to_parquet(tmp_path / "hub" / "train.parquet", batch_size=2)
    for place in (tmp_path / "arrow", tmp_path / "dict", tmp_path / "hub", tmp_path / "hub" / "train.parquet"):
        found, fitted = read(place)
        np.testing.assert_array_equal(found, in_order(pictures))
        assert fitted.given.weights is not None
        assert fitted.given.weights.tolist() == columns["weight"]


@pytest.mark.parametrize("form", WRITERS)
def test_what_we_export_is_read_back_whole(form: str, parents: dict[str, Artifact], tmp_path: Path) -> None:
    handout = collect(parents["decode"], "sqrt", parents["teacher"])
    export(handout, form, tmp_path / "out")
    found, fitted = read(tmp_path / "out", CLASSES)
    np.testing.assert_array_equal(found, handout.images)
    rows = np.concatenate(fitted.rows)
    np.testing.assert_array_equal(fitted.given.weights[rows], handout.weights)
    np.testing.assert_array_equal(fitted.given.logits[rows], handout.logits)


def test_the_content_is_of_the_files_not_of_their_place(pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    from shutil import copytree

    (tmp_path / "a").mkdir()
    held = {"images": torch.from_numpy(pictures), "labels": torch.from_numpy(LABELS), "classes": list(NAMES)}
    torch.save(held, tmp_path / "a" / "set.pt")
    copytree(tmp_path / "a", tmp_path / "b")
    one, two = (read(tmp_path / place)[1].given for place in ("a", "b"))
    assert one.content() == two.content()
    held["images"][0, 0, 0, 0] ^= 1
    torch.save(held, tmp_path / "b" / "set.pt")
    assert read(tmp_path / "b")[1].given.content() != one.content()
