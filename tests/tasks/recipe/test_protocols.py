"""Every number of every preset, so that none drifts unnoticed, and what a recipe changes in one."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ddoq_core.train.protocol import Protocol
from flows.catalogue import load_recipe
from storage.files import canonical_json
from tasks import label, train
from tasks.recipe.protocols import PRESETS, protocol_of, resolve
from tasks.recipe.recipe import Recipe, TrainConfig
from tasks.recipe.settings import TeacherConfig
from tests.flows.conftest import REPOSITORY

CROP_FLIP_CUTMIX = {"shift_px": 0, "flip": True, "cutmix": True}
EVERYWHERE = {"center_crop": None, "label_top_k": None, "weights_in": "loss", "momentum": 0.9, "temperature": 20.0}
EVERYWHERE |= {"batch_norm_momentum": None, "hard_phase": None, "label_smoothing": 0.0}
SOFT = {**EVERYWHERE, "labels": "online", "optimizer": "adamw", "weight_decay": 0.01}
FKD = {
    **SOFT,
    "center_crop": 224 / 256,
    "num_epochs": 300,
    "batch_size": 1024,
    "learning_rate": 0.001,
    "schedule": "cosine",
    "augmentation": {**CROP_FLIP_CUTMIX, "resized_crop": (0.08, 1.0)},
}
RDED = {
    **SOFT,
    "center_crop": 224 / 256,
    "num_epochs": 300,
    "batch_size": 50,
    "learning_rate": 0.001,
    "schedule": "half-cosine",
    "batch_norm_momentum": 0.19,
    "augmentation": {**CROP_FLIP_CUTMIX, "resized_crop": (0.5, 1.0)},
}
HARD = {
    **EVERYWHERE,
    "center_crop": 1.0,
    "labels": "hard",
    "num_epochs": 2000,
    "batch_size": 64,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "weight_decay": 0.0005,
    "schedule": "steps",
    "augmentation": {**CROP_FLIP_CUTMIX, "resized_crop": (0.5, 1.0)},
}
RD3 = {**RDED, "num_epochs": 400, "weight_decay": 0.0, "batch_norm_momentum": None}
QUICK = {
    **SOFT,
    "num_epochs": 200,
    "batch_size": 128,
    "learning_rate": 0.002,
    "schedule": "cosine",
    "augmentation": {"shift_px": 2, "resized_crop": None, "flip": False, "cutmix": False},
}


@pytest.mark.parametrize(
    ("name", "expected"), [("fkd", FKD), ("rded", RDED), ("hard", HARD), ("rd3", RD3), ("quick", QUICK)]
)
def test_a_preset_at_ten_images_of_ten_classes(name: Any, expected: dict[str, Any]) -> None:
    assert asdict(PRESETS[name](10, 10)) == expected
    assert asdict(resolve(TrainConfig(protocol=name), 10, 10)) == expected


@pytest.mark.parametrize(("ipc", "num_classes"), [(1, 10), (50, 1000), (200, 1000)])
def test_fkd_and_quick_are_the_same_at_every_size(ipc: int, num_classes: int) -> None:
    assert asdict(PRESETS["fkd"](ipc, num_classes)) == FKD
    assert asdict(PRESETS["quick"](ipc, num_classes)) == QUICK


@pytest.mark.parametrize(("ipc", "num_classes"), [(10, 10), (50, 1000), (200, 1000)])
def test_rd3_is_the_same_at_every_size(ipc: int, num_classes: int) -> None:
    assert asdict(PRESETS["rd3"](ipc, num_classes)) == RD3
    assert PRESETS["rd3"](1, 10).batch_size == 10, "no more than there are"


@pytest.mark.parametrize(
    ("ipc", "num_classes", "batch_size"),
    [
        *[(1, 10, 10), (1, 5, 5), (1, 1000, 20), (10, 100, 100), (10, 1000, 100), (20, 10, 50)],
        *[(50, 10, 100), (50, 1000, 200), (100, 1000, 200)],
    ],
)
def test_batches_of_rded_follow_its_script(ipc: int, num_classes: int, batch_size: int) -> None:
    assert asdict(PRESETS["rded"](ipc, num_classes)) == {**RDED, "batch_size": batch_size}


@pytest.mark.parametrize(
    ("ipc", "num_classes", "num_epochs"),
    [
        *[(1, 10, 3000), (2, 10, 2000), (11, 10, 1500), (50, 10, 1500), (51, 10, 1000), (200, 10, 1000)],
        *[(201, 10, 500), (501, 10, 300), (10, 100, 1300), (50, 100, 1000), (100, 100, 600)],
    ],
)
def test_epochs_of_hard_labels_follow_idcs_script(ipc: int, num_classes: int, num_epochs: int) -> None:
    assert asdict(PRESETS["hard"](ipc, num_classes)) == {**HARD, "num_epochs": num_epochs}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_its_source(name: Any) -> None:
    text = PRESETS[name].__doc__ or ""
    assert "arXiv" in text or "No source" in text


def test_what_the_recipe_sets_comes_first() -> None:
    changes: dict[str, Any] = {
        "labels": "stored",
        "label_top_k": 5,
        "hard_phase": (0.25, 0.5),
        "label_smoothing": 0.1,
        "weights_in": "sampling",
        "num_epochs": 7,
        "batch_size": 9,
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "steps",
        "temperature": 2.0,
        "batch_norm_momentum": 0.5,
        "center_crop": 0.9,
        "augmentation": {"shift_px": 1, "resized_crop": None, "flip": False, "cutmix": False},
    }
    assert set(changes) == {field.name for field in fields(Protocol)}, "a new field needs a value here"
    for name in PRESETS:
        config = TrainConfig.model_validate({"protocol": name, **changes})
        assert asdict(resolve(config, 10, 10)) == changes


@pytest.mark.parametrize(
    ("batch_size", "num_epochs", "of_tiles"),
    [
        (50, 300, 75),  # 2 steps over 100 pictures, 8 over 400 tiles
        (64, 300, 86),  # 2 and 7 steps: 600 in 85.7 epochs
        (1024, 300, 300),  # a step is an epoch of either
        (50, 1, 1),
    ],
)
def test_students_of_mosaics_take_the_steps_of_others(batch_size: int, num_epochs: int, of_tiles: int) -> None:
    methods = {"plain": {}, "drawn": {"decode": {"num_draws": 4}}, "tiled": {"decode": {"mosaic": 2}}}
    train = {"train.batch_size": batch_size, "train.num_epochs": num_epochs}
    recipe = load_recipe("digits", ipc=10).with_changes({"methods": methods, **train})
    plain, drawn, tiled = (protocol_of(recipe, method, 10) for method in methods)
    assert plain == drawn == resolve(recipe.train, 10, 10)
    assert tiled == replace(plain, num_epochs=of_tiles)


def test_the_catalogue_trains_as_it_says() -> None:
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    recipes = {d["name"]: Recipe.model_validate(d["parameters"]["recipe"]) for d in deployments}
    found = {name: asdict(resolve(recipe.train, recipe.ipc, 10)) for name, recipe in recipes.items()}
    assert found["digits"] == QUICK
    assert found["imagenet"] == FKD
    augmentation = {"shift_px": 4, "flip": True, "cutmix": True, "resized_crop": None}
    folder = {"num_epochs": 300, "batch_size": 64, "learning_rate": 0.001, "augmentation": augmentation}
    assert found["folder"] == {**QUICK, **folder}


@pytest.mark.parametrize("change", [{"protocol": "sre2l"}, {"labels": "soft"}, {"learning_rate": 0}, {"momentum": 1}])
def test_what_no_protocol_has_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(change)


@pytest.mark.parametrize(
    ("augmentation", "named"),
    [
        ({"shift": 1}, r"augmentation\.shift\n"),
        ({"shift_px": -1}, r"augmentation\n.*shift_px must be 0 or more, got -1"),
        ({"shift_px": 0.5}, r"augmentation\.shift_px\n"),
        ({"resized_crop": [0.5]}, r"augmentation\.resized_crop\."),
        ({"flip": "often"}, r"augmentation\.flip\n"),
    ],
)
@pytest.mark.parametrize("config", [TrainConfig, TeacherConfig])
def test_what_no_augmentation_has_is_refused_by_name(config: Any, augmentation: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        config.model_validate({"augmentation": augmentation})


RDED_AUGMENTATION = {"crops": "until they fit", "cutmix": True, "flip": True, "resized_crop": [0.5, 1.0], "shift_px": 0}
RDED_STUDENT = {
    "labels": "online",
    "weights_in": "loss",
    "num_epochs": 300,
    "batch_size": 50,
    "optimizer": "adamw",
    "learning_rate": 0.001,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "schedule": "half-cosine",
    "temperature": 20.0,
    "batch_norm_momentum": 0.19,
    "augmentation": RDED_AUGMENTATION,
    "architecture": "resnet18",
    "initialisation": "torchvision",
    "weights": "sqrt",
    "seed": 3,
}
RDED_LABELS = {
    "num_epochs": 300,
    "batch_size": 50,
    "augmentation": RDED_AUGMENTATION,
    "label_top_k": None,
    "temperature": None,
    "weights": None,
    "seed": 3,
}


def test_what_identifies_a_student_is_this_json() -> None:
    protocol = resolve(TrainConfig(protocol="rded", label_top_k=9), 10, 10)
    assert canonical_json(train.identity(protocol, "resnet18", "sqrt", 3)) == canonical_json(RDED_STUDENT)


def test_halds_phases_are_a_methods_or_the_recipes_and_identify_a_student() -> None:
    hald = {"hard_phase": (1 / 6, 5 / 6), "label_smoothing": 0.8}
    recipe = load_recipe("digits").with_changes({"methods": {"soft": {}, "hald": hald}, "train.label_smoothing": 0.1})
    soft, phased = (protocol_of(recipe, method, 10) for method in recipe.methods)
    assert (soft.hard_phase, soft.label_smoothing) == (None, 0.1)
    assert (phased.hard_phase, phased.label_smoothing) == (hald["hard_phase"], 0.8)
    told = train.identity(phased, "resnet18", "sqrt", 3)
    assert told["hard_phase"] == hald["hard_phase"] and told["label_smoothing"] == 0.8
    assert "hard_phase" not in train.identity(soft, "resnet18", "sqrt", 3)


@pytest.mark.parametrize(
    ("protocol", "architecture"),
    [("fkd", "resnet18"), *[("rded", name) for name in ("convnet-3-128", "resnetap-10", "resnet18+instance-norm")]],
)
def test_batch_norms_momentum_identifies_no_student_that_is_the_same_without(protocol: Any, architecture: str) -> None:
    resolved = resolve(TrainConfig(protocol=protocol), 10, 10)
    assert "batch_norm_momentum" not in train.identity(resolved, architecture, "sqrt", 3)


def test_what_identifies_labels_is_this_json() -> None:
    protocol = resolve(TrainConfig(protocol="rded"), 10, 10)
    assert canonical_json(label.identity(protocol, "sqrt", 3)) == canonical_json(RDED_LABELS)
    pruned = replace(protocol, label_top_k=9, weights_in="sampling")
    expected = {**RDED_LABELS, "label_top_k": 9, "temperature": 20.0, "weights": "sqrt"}
    assert canonical_json(label.identity(pruned, "sqrt", 3)) == canonical_json(expected)


def test_what_identifies_a_teacher_is_this_json() -> None:
    config = TeacherConfig.model_validate({"augmentation": {"shift_px": 2}})
    expected = {"shift_px": 2, "resized_crop": None, "flip": False, "cutmix": False}
    assert canonical_json(config.model_dump()["augmentation"]) == canonical_json(expected)
