"""The paper's numbers stand beside ours only where the cell is the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from timm.data import ImageNetInfo

from flows.catalogue import load_recipe
from tasks.pages.paper import D4M, DDOQ, beside

IMAGENET = tuple(ImageNetInfo().label_names())
RESULTS = [
    {"ipc": 10, "cell": DDOQ, "architecture": "resnet18", "top1_mean": 0.33},
    {"ipc": 10, "cell": D4M, "architecture": "resnet18", "top1_mean": 0.28},
    {"ipc": 10, "cell": "exact-sqrt-diffusion", "architecture": "resnet18", "top1_mean": 0.5},
]


def ours(recipe: str, classes: tuple[str, ...], *settings: str) -> dict[tuple[str, str, int, str], float]:
    index: Any = SimpleNamespace(classes=classes)
    rows = beside(RESULTS, load_recipe(recipe, settings=list(settings)), index)
    assert len(rows) == 18
    return {(r["prior"], r["student"], r["ipc"], r["cell"]): r["ours"] for r in rows if r["ours"] is not None}


def test_the_same_cell() -> None:
    assert ours("imagenet", IMAGENET) == {
        ("stable-diffusion", "resnet18", 10, DDOQ): 0.33,
        ("stable-diffusion", "resnet18", 10, D4M): 0.28,
    }
    assert ours("imagenet-dit", IMAGENET) == {("dit", "resnet18", 10, DDOQ): 0.33}


@pytest.mark.parametrize("setting", ["train.protocol=rded", "train.num_epochs=100", "teacher.architecture=resnet18"])
def test_another_protocol_is_another_cell(setting: str) -> None:
    assert not ours("imagenet", IMAGENET, setting)


def test_another_data_set_is_another_cell() -> None:
    assert not ours("imagenet", IMAGENET[:10])
    assert not ours("digits", tuple("0123456789"))
