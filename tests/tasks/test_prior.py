"""The stage prior: what it is trained on, and what identifies it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddoq_core.encode.autoencoder import encode as encoded
from storage.artifact import Artifact
from tasks import autoencoder, cluster, decode, encode, prior
from tasks.inputs.checks import check_prior
from tasks.inputs.models import load_encoder
from tasks.inputs.real import read_images
from tasks.inputs.stores import images_of, latents_of
from tests.pipelines import save_pixart, save_sana, save_stable_diffusion_xl
from tests.tasks.conftest import Pipeline, complete


def test_latents_of_mirrored_images_are_their_own(pipeline: Pipeline) -> None:
    """Not mirrored latents: no autoencoder promises that."""
    mirrored = complete(encode.plan(pipeline.recipe, pipeline.shard, pipeline.autoencoder, mirrored=True))
    assert mirrored.digest != pipeline.encode.digest
    found, plain = (latents_of(artifact).read_class("3") for artifact in (mirrored, pipeline.encode))
    rows = latents_of(mirrored).read_rows("3")
    assert np.array_equal(rows, latents_of(pipeline.encode).read_rows("3"))
    pictures = read_images(pipeline.shard, pipeline.index, rows, pipeline.recipe.images.for_encoding)
    expected = encoded(load_encoder(pipeline.autoencoder), np.ascontiguousarray(pictures[:, :, ::-1]))
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), atol=1e-2)
    assert np.abs(found - plain).max() > 0.1 and np.abs(found - plain[..., ::-1]).max() > 0.1


def test_the_latents_that_a_prior_saw_identify_it_and_are_normalised(pipeline: Pipeline) -> None:
    mirrored = complete(encode.plan(pipeline.recipe, pipeline.shard, pipeline.autoencoder, mirrored=True))
    recipe = pipeline.recipe.with_changes({"prior.train.flip": True})
    both = complete(prior.plan(recipe, pipeline.shard, {"encode": pipeline.encode, "mirrored": mirrored}))
    assert both.digest != pipeline.prior.digest
    for made, parents in ((pipeline.prior, [pipeline.encode]), (both, [pipeline.encode, mirrored])):
        z = np.concatenate(
            [latents_of(parent).read_class(name) for parent in parents for name in pipeline.index.classes]
        )
        assert np.allclose(mean_of(made), z.mean((0, 2, 3), dtype=np.float64))


def mean_of(artifact: Artifact) -> list[float]:
    return json.loads((Path(artifact.path) / "model" / "config.json").read_text())["latents_mean"]


def test_a_pipeline_of_diffusers_is_noted_and_decodes(pipeline: Pipeline, tmp_path: Path) -> None:
    weights = save_stable_diffusion_xl(tmp_path)
    given = {"kind": "image-to-image", "weights": str(weights)}
    recipe = pipeline.recipe.with_changes({"prior": given, "decode": {"strength": 0.5, "num_steps": 4}})
    noted = complete(prior.plan(recipe, pipeline.shard, {}))
    models = {**pipeline.models, "prior": noted}
    made = complete(decode.plan(recipe, "ddoq", 0, pipeline.cluster, models))
    found = images_of(made).read_class("3")
    assert found["images"].shape == (3, 8, 8, 3) and found["images"].std() > 0
    other = recipe.with_changes({"decode.prompt": "a photo of {name}"})
    assert decode.plan(other, "ddoq", 0, pipeline.cluster, models).artifact.digest != made.digest


@pytest.mark.parametrize(("save", "size_px"), [(save_pixart, 8), (save_sana, 32)])
def test_a_pipeline_s_own_autoencoder_encodes_and_decodes_for_it(
    save: Callable[[Path], Path], size_px: int, pipeline: Pipeline, tmp_path: Path
) -> None:
    weights, shard = str(save(tmp_path)), pipeline.shard
    changes = {
        "images.size_px": size_px,
        "autoencoder": {"weights": weights, "subfolder": "vae"},
        "prior": {"kind": "image-to-image", "weights": weights},
        "decode": {"strength": 0.5, "num_steps": 4},
    }
    recipe = pipeline.recipe.with_changes(changes)
    check_prior(recipe, pipeline.index.classes)
    models = {
        "autoencoder": complete(autoencoder.plan(recipe, shard)),
        "prior": complete(prior.plan(recipe, shard, {})),
    }
    latents = complete(encode.plan(recipe, shard, models["autoencoder"]))
    points = complete(cluster.plan(recipe, "ddoq", 0, latents))
    found = images_of(complete(decode.plan(recipe, "ddoq", 0, points, models))).read_class("3")
    assert found["images"].shape == (3, size_px, size_px, 3) and found["images"].std() > 0
