"""ImageNet's own recipes in miniature: WordNet-id folders of tiny JPEGs, and tiny models in the published formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo

from ddoq_core.imagenet import describe
from ddoq_core.train.networks import ClassifierSpec, build_network
from tests.pipelines import save_dit, save_stable_diffusion

SIZE_PX, IPC = 8, 2
VAL_IMAGES = 2  # of a class
NETWORK = "test_resnet"
RECIPES = ("imagenet", "imagenet-dit")


def write_images(folder: Path, num_classes: int, per_class: int) -> Path:
    """Classes from all over ImageNet-1K, each of noise about a colour of its own."""
    names, rng = ImageNetInfo().label_names(), np.random.default_rng(0)
    for k in range(num_classes):
        name, colour = names[k * len(names) // num_classes], rng.integers(0, 200, 3)
        for split, count in (("train", per_class), ("val", VAL_IMAGES)):
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = (colour + rng.integers(0, 56, (2 * SIZE_PX, 2 * SIZE_PX, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{name}_{split}_{i}.JPEG")
    return folder


def write_models(folder: Path) -> dict[str, Path]:
    """The pipelines of both recipes by their names, and a teacher that knows nothing."""
    folder.mkdir(parents=True)
    state = build_network(ClassifierSpec(NETWORK, 1000, SIZE_PX)).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "teacher.safetensors")
    return {
        "imagenet": save_stable_diffusion(folder / "sd"),
        "imagenet-dit": _named_as_published(save_dit(folder / "dit")),
        "teacher": folder / "teacher.safetensors",
    }


def _named_as_published(pipeline: Path) -> Path:
    """The pipeline with the names of all 1,000 classes."""
    index = json.loads((pipeline / "model_index.json").read_text())
    index["id2label"] = {k: describe(name) for k, name in enumerate(ImageNetInfo().label_names())}
    (pipeline / "model_index.json").write_text(json.dumps(index))
    return pipeline


def changes(recipe: str, images: Path, models: dict[str, Path]) -> dict[str, Any]:
    """What a recipe is told: where its data and weights are, and the sizes of everything."""
    return {
        "data.path": str(images),
        "images.size_px": SIZE_PX,
        "images.train_px": SIZE_PX,
        "autoencoder.weights": str(models[recipe]),
        "prior.weights": str(models[recipe]),
        "teacher": {"architecture": NETWORK, "weights": str(models["teacher"]), "min_gain": 0},
        "seeds": [0],
        "decode.num_steps": 2,
        "train.architectures": [NETWORK],
        "train.num_epochs": 2,
    }
