"""ILSVRC's flat validation images, labelled by each form of the ground truth."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from storage.sources import FolderSource, SourceError, TarSource
from storage.sources.ground_truth import META, TRUTH
from storage.sources.listing import locations
from tasks.recipe.settings import DataConfig
from tests.storage.sources.test_archives import pictures, write_tar
from tests.storage.sources.test_sources import listed, make_folder, make_image, run_shard

IDS = ("n01440764", "n01443537", "n02119789")
NUMBERS = {"n01440764": 3, "n01443537": 1, "n02119789": 2}  # the devkit's order is its own
NAMES = [f"ILSVRC2012_val_{k:08d}" for k in range(1, 7)]
TRUE = [IDS[k] for k in (2, 0, 1, 1, 0, 2)]


def make_devkit(root: Path, truth: list[int] | None = None) -> Path:
    """The parts of ILSVRC2012_devkit_t12 that are read, with a synset above the classes as in the real one."""
    rows = [(NUMBERS[c], c, "words", "gloss", 0, 0, 0, 1300) for c in IDS]
    rows.append((1001, "n00001740", "entity", "gloss", 2, [3, 1], 5, 0))
    fields = (
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    )
    synsets = np.array([tuple(row) for row in rows], dtype=[(name, object) for name in fields]).reshape(-1, 1)
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / META, {"synsets": synsets})
    numbers = truth or [NUMBERS[c] for c in TRUE]
    (data / TRUTH).write_text("".join(f"{k}\n" for k in numbers))
    return data.parent


def make_flat(root: Path) -> Path:
    for k, name in enumerate(NAMES):
        make_image(root / f"{name}.JPEG", 100 + k)
    return root


def labels_in(root: Path, form: str) -> Path:
    """The ground truth in one of its forms."""
    devkit = make_devkit(root)
    match form:
        case "folder":
            return devkit
        case "data folder":
            return devkit / "data"
        case "file":
            return devkit / "data" / TRUTH
        case "archive":
            with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
                tar.add(devkit, devkit.name)
            shutil.rmtree(devkit)
            return root / "ILSVRC2012_devkit_t12.tar.gz"
        case "kaggle":
            lines = [f"{name},{c} 1 2 3 4 {c} 5 6 7 8" for name, c in zip(NAMES, TRUE, strict=True)]
            path = root / "LOC_val_solution.csv"
            path.write_text("\n".join(["ImageId,PredictionString", *lines[::-1]]) + "\n")
            return path
    path = root / "val.txt"
    path.write_text("\n".join(TRUE) + "\n")
    return path


FORMS = ["folder", "data folder", "file", "archive", "kaggle", "ids"]


@pytest.mark.parametrize("form", FORMS)
def test_a_flat_folder_gets_the_classes_of_the_ground_truth(tmp_path: Path, form: str) -> None:
    train, val = make_folder(tmp_path / "train", classes=IDS), make_flat(tmp_path / "val")
    source = FolderSource(train, val, labels_in(tmp_path, form))
    found = [(Path(name).stem, c) for name, c, split in listed(source) if split == "val"]
    assert found == list(zip(NAMES, TRUE, strict=True))


def test_a_flat_tar_gets_them_in_the_order_of_names_not_of_members(tmp_path: Path) -> None:
    train = write_tar(tmp_path / "train.tar", pictures(f"{c}.tar/{c}_0.png" for c in IDS))
    val = write_tar(tmp_path / "ILSVRC2012_img_val.tar", pictures(f"{name}.JPEG" for name in NAMES[::-1]))
    source = TarSource(train, val, labels_in(tmp_path, "folder"), unpacked=tmp_path)
    found = {
        Path(at.member).stem: c
        for at, c in zip(locations(source.listing.images), source.listing.images["class"].to_pylist(), strict=True)
    }
    assert {name: found[name] for name in NAMES} == dict(zip(NAMES, TRUE, strict=True))


def test_the_stage_indexes_them(tmp_path: Path) -> None:
    paths = {
        "path": str(make_folder(tmp_path / "set", ("train",), IDS)),
        "val_path": str(make_flat(tmp_path / "set" / "val")),
        "val_labels": str(make_devkit(tmp_path)),
    }
    index = run_shard(tmp_path / "runs", DataConfig(**paths))
    assert index.counts("val") == dict.fromkeys(IDS, 2) and index.counts("train") == dict.fromkeys(IDS, 4)
    assert index.table["path"].to_pylist()[-1] == f"val/{NAMES[-1]}.JPEG"


@pytest.mark.parametrize("missing", [META, TRUTH])
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_numbers_without_what_they_mean_are_refused(tmp_path: Path, form: str, missing: str) -> None:
    devkit = make_devkit(tmp_path)
    (devkit / "data" / missing).unlink()
    labels = devkit
    if form == "archive":
        labels = tmp_path / "devkit.tar.gz"
        with tarfile.open(labels, "w:gz") as tar:
            tar.add(devkit, devkit.name)
    source = FolderSource(make_folder(tmp_path / "train", classes=IDS), make_flat(tmp_path / "val"), labels)
    with pytest.raises(SourceError, match=rf"has no {missing}.*not in the order of WordNet ids.*give the devkit"):
        source.list_images()


def test_ground_truth_of_another_length_is_refused(tmp_path: Path) -> None:
    val = make_flat(tmp_path / "val")
    (val / f"{NAMES[2]}.JPEG").unlink()
    train = make_folder(tmp_path / "train", classes=IDS)
    with pytest.raises(SourceError, match=r"has 6 labels for 5 images: give"):
        FolderSource(train, val, labels_in(tmp_path, "ids")).list_images()


def test_an_image_that_the_table_does_not_name_is_refused(tmp_path: Path) -> None:
    val, labels = make_flat(tmp_path / "val"), labels_in(tmp_path, "kaggle")
    make_image(val / "ILSVRC2012_val_00000099.JPEG")
    with pytest.raises(SourceError, match=r"no label for 1 images, the first is ILSVRC2012_val_00000099"):
        FolderSource(make_folder(tmp_path / "train", classes=IDS), val, labels).list_images()


def test_a_number_that_is_no_class_is_refused(tmp_path: Path) -> None:
    train, val = make_folder(tmp_path / "train", classes=IDS), make_flat(tmp_path / "val")
    with pytest.raises(SourceError, match=r"holds 7, which is no class of meta\.mat"):
        FolderSource(train, val, make_devkit(tmp_path, [1, 2, 3, 1, 2, 7])).list_images()


@pytest.mark.parametrize(("name", "text"), [("labels.txt", "490\n361\n"), ("labels.csv", "image,label\na,b\n")])
def test_labels_in_no_known_form_are_refused(tmp_path: Path, name: str, text: str) -> None:
    labels = tmp_path / name
    labels.write_text(text)
    train, val = make_folder(tmp_path / "train", classes=IDS), make_flat(tmp_path / "val")
    with pytest.raises(SourceError, match=r"'490', which is no WordNet id: give|cannot be read .*ImageId.*: give"):
        FolderSource(train, val, labels).list_images()


def test_labels_that_are_not_there_are_named(tmp_path: Path) -> None:
    train, val = make_folder(tmp_path / "train", classes=IDS), make_flat(tmp_path / "val")
    with pytest.raises(SourceError, match=r"nowhere\.txt cannot be looked at"):
        FolderSource(train, val, tmp_path / "nowhere.txt").list_images()


def test_an_image_that_cannot_be_looked_at_does_not_shift_the_labels(tmp_path: Path) -> None:
    val = make_flat(tmp_path / "val")
    (val / f"{NAMES[0]}.JPEG").unlink()
    (val / f"{NAMES[0]}.JPEG").symlink_to("nowhere")
    source = FolderSource(make_folder(tmp_path / "train", classes=IDS), val, labels_in(tmp_path, "ids"))
    assert [c for _, c, split in listed(source) if split == "val"] == TRUE


@pytest.mark.parametrize(
    "given",
    [
        {"val_labels": "x"},
        {"source": "parquet", "val_path": "x", "val_labels": "x"},
        {"source": "digits", "val_path": "x"},
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"data\.val_labels goes with|has its own validation images"):
        DataConfig.model_validate({"path": "x", **given})
