"""The views of real images: as they would be read, whole or absent, and all that students and teachers look at."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddoq_core.images import preprocess
from ddoq_core.train.accuracy import accuracy
from ddoq_core.train.networks import ClassifierSpec, build_classifier, save_classifier
from flows.catalogue import load_recipe
from flows.run import Run
from storage.artifact import Artifact, Damaged, NotDone
from storage.clock import Clock
from storage.index import Index
from storage.sources import SourceError
from tasks import evaluate, shard, teacher, view
from tasks.inputs.given import MODEL
from tasks.inputs.real import classify_split, read_images
from tasks.inputs.stores import PIXELS, VIEW, indexed, view_of
from tasks.recipe.recipe import Recipe
from tests.tasks.conftest import complete
from tests.tasks.inputs.test_models import flip

NUM_TRAIN, NUM_VAL, SIDE = 300, 5, 8  # images of a class


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright noise, wider than high."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(100 * (name == "dog"), 156 + 100 * (name == "dog"), (10, 14, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{k:03d}.png")
    return root


@pytest.fixture
def data(photographs: Path, tmp_path: Path) -> tuple[Recipe, Artifact, Index]:
    """A recipe on a copy of them, and their index."""
    shutil.copytree(photographs, tmp_path / "images")
    changes = {
        "data": {"path": str(tmp_path / "images")},
        "images.size_px": SIDE,
        "teacher": {"architecture": "convnet-1-4", "num_epochs": 1, "min_gain": 0},
    }
    recipe = load_recipe("folder").with_changes(changes)
    return recipe, *indexed(complete(shard.plan(recipe, tmp_path / "runs")))


def test_a_view_holds_the_images_of_a_split_in_the_order_of_the_index(data: tuple[Recipe, Artifact, Index]) -> None:
    recipe, listed, index = data
    images = view_of(complete(view.plan(recipe, listed, "train")))
    expected = read_images(listed, index, index.rows("train"), recipe.images.for_training)
    np.testing.assert_array_equal(images, expected)
    assert isinstance(images, np.memmap)


def test_a_view_is_cropped_as_the_protocol_says(data: tuple[Recipe, Artifact, Index], tmp_path: Path) -> None:
    recipe, listed, _ = data
    found = view_of(complete(view.plan(recipe, listed, "val", 0.875)))
    with Image.open(tmp_path / "images" / "val" / "cat" / "001.png") as image:
        np.testing.assert_array_equal(found[1], preprocess(image, SIDE, "crop", 0.875))
    assert not np.array_equal(found, view_of(complete(view.plan(recipe, listed, "val"))))


def test_few_images_of_a_view_are_in_memory_when_it_is_made(
    data: tuple[Recipe, Artifact, Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, listed, _ = data
    monkeypatch.setattr(view, "BATCH_IMAGES", 16)
    work = view.plan(recipe.with_changes({"images.size_px": 96}), listed, "train")
    tracemalloc.start()
    try:
        complete(work)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    num_bytes = (work.artifact.path / VIEW / PIXELS).stat().st_size
    assert num_bytes > 2 * NUM_TRAIN * 96 * 96 * 3
    assert peak < num_bytes / 2


def test_a_view_that_was_cut_off_is_not_there(data: tuple[Recipe, Artifact, Index], tmp_path: Path) -> None:
    recipe, listed, index = data
    gone, work = tmp_path / "images" / "train" / "dog" / "299.png", view.plan(recipe, listed, "train")
    image = gone.read_bytes()
    gone.unlink()
    with pytest.raises(SourceError, match=r"dog/299\.png can no longer be read"):
        work.task.fn(work.artifact, *work.arguments)
    assert not work.artifact.is_done()
    assert not [path for path in work.artifact.path.rglob("*") if path.name == PIXELS]
    gone.write_bytes(image)
    assert len(view_of(complete(work))) == len(index.rows("train"))


def test_a_flipped_bit_is_not_seen_as_a_picture(data: tuple[Recipe, Artifact, Index]) -> None:
    recipe, listed, _ = data
    work = view.plan(recipe, listed, "val")
    before = view_of(complete(work)).copy()
    flip(work.artifact.path / VIEW / PIXELS)
    with pytest.raises(Damaged, match=PIXELS):
        view_of(work.artifact)
    np.testing.assert_array_equal(view_of(complete(work)), before)


def test_students_are_shown_the_view_alone(data: tuple[Recipe, Artifact, Index], tmp_path: Path) -> None:
    recipe, listed, index = data
    held_out = complete(view.plan(recipe, listed, "val", 0.875))
    student, spec = Artifact(listed.root, "train", 1, {}, {"shard": listed}), ClassifierSpec("convnet-1-4", 2, SIDE)
    model = build_classifier(spec, seed=1).eval()
    with student.writing(MODEL, Clock()) as folder:
        save_classifier(model, spec, folder)
    read = classify_split(model, listed, index, "val", recipe.images.for_training, 0.875)
    shutil.rmtree(tmp_path / "images")
    assert complete(evaluate.plan(listed, student, held_out)).record().facts["top1"] == accuracy(*read).top1


def test_a_teacher_is_trained_on_the_view_of_the_training_images(data: tuple[Recipe, Artifact, Index]) -> None:
    recipe, listed, _ = data
    training = complete(view.plan(recipe, listed, "train"))
    work = teacher.plan(recipe, listed, training)
    assert work.reads == (training,)
    shutil.rmtree(Path(recipe.data.path or "") / "train")
    assert len(complete(work).record().facts["losses"]) > 0
    given = recipe.with_changes({"teacher.weights": "pretrained", "teacher.architecture": "resnet18"})
    assert teacher.plan(given, listed, None).reads == ()


def test_a_stage_alone_needs_what_it_reads(data: tuple[Recipe, Artifact, Index]) -> None:
    recipe, listed, _ = data
    held_out = view.plan(recipe, listed, "val").artifact
    student = Artifact(listed.root, "train", 1, {}, {"shard": listed})
    with student.writing(MODEL, Clock()) as folder:
        (folder / "model").touch()
    with pytest.raises(
        NotDone, match=f"view/{held_out.digest} is not complete, which this stage needs: run the stage 'view'"
    ):
        Run(listed.root, recipe, only="evaluate").add(evaluate.plan(listed, student, held_out))
