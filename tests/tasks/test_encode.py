"""Latents of JPEG files, decoded in full or no larger than they are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from flows.catalogue import load_recipe
from storage.artifact import Artifact
from tasks import autoencoder, encode, shard
from tasks.inputs.data import shard_artifact
from tasks.inputs.stores import indexed, latents_of
from tasks.recipe.recipe import Recipe
from tests.tasks.conftest import complete

BLOCKS = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Of random squares of 8 px in JPEG files of 64 px."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(8):
            pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{k}.jpg")
    torch.manual_seed(0)
    AutoencoderKL(**BLOCKS, block_out_channels=(32,)).save_pretrained(tmp_path / "vae")
    weights = {"weights": str(tmp_path / "vae"), "precision": "float32"}
    return load_recipe("folder").with_changes(
        {"data.path": str(tmp_path / "images"), "images.size_px": 16, "autoencoder": weights}
    )


def test_a_jpeg_decoded_at_a_quarter_is_another_artifact_with_other_latents(recipe: Recipe, tmp_path: Path) -> None:
    data = shard_artifact(tmp_path / "runs", recipe.data)
    shard.shard.fn(data, recipe.data)
    data, _ = indexed(data)
    model = complete(autoencoder.plan(recipe, data))

    def latents(jpeg: str) -> tuple[Artifact, np.ndarray]:
        made = complete(encode.plan(recipe.with_changes({"encode.jpeg": jpeg}), data, model))
        return made, latents_of(made).read_class("cat").astype(np.float32)

    (full, z), (reduced, other) = latents("full"), latents("reduced")
    assert "jpeg" not in full.config and reduced.config["jpeg"] == "reduced", "what was made before is found"
    error = np.linalg.norm(other - z) / np.linalg.norm(z)
    assert 1e-3 < error < 0.5
