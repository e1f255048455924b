"""Every number of every preset, so that none drifts unnoticed, and what a recipe changes in one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tasks.recipe.protocols import PRESETS, Protocol, resolve
from tasks.recipe.settings import Recipe, TrainConfig
from tests.flows.conftest import REPOSITORY

CROP_FLIP_CUTMIX = {"shift_px": 0, "flip": True, "cutmix": True}
EVERYWHERE = {"label_top_k": None, "weights_in": "loss", "momentum": 0.9, "temperature": 20.0}
SOFT = {**EVERYWHERE, "labels": "online", "optimizer": "adamw", "weight_decay": 0.01}
FKD = {
    **SOFT,
    "num_epochs": 300,
    "batch_size": 1024,
    "learning_rate": 0.001,
    "schedule": "cosine",
    "augmentation": {**CROP_FLIP_CUTMIX, "resized_crop": (0.08, 1.0)},
}
RDED = {
    **SOFT,
    "num_epochs": 300,
    "batch_size": 50,
    "learning_rate": 0.001,
    "schedule": "half-cosine",
    "augmentation": {**CROP_FLIP_CUTMIX, "resized_crop": (0.5, 1.0)},
}
HARD = {
    **EVERYWHERE,
    "labels": "hard",
    "num_epochs": 2000,
    "batch_size": 64,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "weight_decay": 0.0005,
    "schedule": "steps",
    "augmentation": {**CROP_FLIP_CUTMIX, "resized_crop": (0.5, 1.0)},
}
QUICK = {
    **SOFT,
    "num_epochs": 200,
    "batch_size": 128,
    "learning_rate": 0.002,
    "schedule": "cosine",
    "augmentation": {"shift_px": 2, "resized_crop": None, "flip": False, "cutmix": False},
}


@pytest.mark.parametrize(("name", "expected"), [("fkd", FKD), ("rded", RDED), ("hard", HARD), ("quick", QUICK)])
def test_a_preset_at_ten_images_of_ten_classes(name: Any, expected: dict[str, Any]) -> None:
    assert PRESETS[name](10, 10).model_dump() == expected
    assert resolve(TrainConfig(protocol=name), 10, 10).model_dump() == expected


@pytest.mark.parametrize(("ipc", "num_classes"), [(1, 10), (50, 1000), (200, 1000)])
def test_fkd_and_quick_are_the_same_at_every_size(ipc: int, num_classes: int) -> None:
    assert PRESETS["fkd"](ipc, num_classes).model_dump() == FKD
    assert PRESETS["quick"](ipc, num_classes).model_dump() == QUICK


@pytest.mark.parametrize(
    ("ipc", "num_classes", "batch_size"),
    [
        *[(1, 10, 10), (1, 5, 5), (1, 1000, 20), (10, 100, 100), (10, 1000, 100), (20, 10, 50)],
        *[(50, 10, 100), (50, 1000, 200), (100, 1000, 200)],
    ],
)
def test_batches_of_rded_follow_its_script(ipc: int, num_classes: int, batch_size: int) -> None:
    assert PRESETS["rded"](ipc, num_classes).model_dump() == {**RDED, "batch_size": batch_size}


@pytest.mark.parametrize(
    ("ipc", "num_classes", "num_epochs"),
    [
        *[(1, 10, 3000), (2, 10, 2000), (11, 10, 1500), (50, 10, 1500), (51, 10, 1000), (200, 10, 1000)],
        *[(201, 10, 500), (501, 10, 300), (10, 100, 1300), (50, 100, 1000), (100, 100, 600)],
    ],
)
def test_epochs_of_hard_labels_follow_idcs_script(ipc: int, num_classes: int, num_epochs: int) -> None:
    assert PRESETS["hard"](ipc, num_classes).model_dump() == {**HARD, "num_epochs": num_epochs}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_its_source(name: Any) -> None:
    text = PRESETS[name].__doc__ or ""
    assert "arXiv" in text or "No source" in text


def test_what_the_recipe_sets_comes_first() -> None:
    changes: dict[str, Any] = {
        "labels": "stored",
        "label_top_k": 5,
        "weights_in": "sampling",
        "num_epochs": 7,
        "batch_size": 9,
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "steps",
        "temperature": 2.0,
        "augmentation": {"shift_px": 1, "resized_crop": None, "flip": False, "cutmix": False},
    }
    assert set(changes) == set(Protocol.model_fields), "a new field needs a value here"
    for name in PRESETS:
        config = TrainConfig.model_validate({"protocol": name, **changes})
        assert resolve(config, 10, 10).model_dump() == changes


def test_the_catalogue_trains_as_it_says() -> None:
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    recipes = {d["name"]: Recipe.model_validate(d["parameters"]["recipe"]) for d in deployments}
    found = {name: resolve(recipe.train, recipe.ipc, 10).model_dump() for name, recipe in recipes.items()}
    assert found["digits"] == QUICK
    assert found["imagenet"] == FKD
    augmentation = {"shift_px": 4, "flip": True, "cutmix": True, "resized_crop": None}
    folder = {"num_epochs": 300, "batch_size": 64, "learning_rate": 0.001, "augmentation": augmentation}
    assert found["folder"] == {**QUICK, **folder}


@pytest.mark.parametrize("change", [{"protocol": "sre2l"}, {"labels": "soft"}, {"learning_rate": 0}, {"momentum": 1}])
def test_what_no_protocol_has_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(change)
