"""Stage autoencoder: train the recipe's own small autoencoder, or check the weights it names."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.cores import num_cores
from storage.files import write_json
from tasks.inputs.cached import DiskCheckpoint, made_once
from tasks.inputs.given import MODEL, WeightsError, expect_weights, facts_of, identity_of, stamp_weights
from tasks.inputs.models import ELSEWHERE, PRECISION
from tasks.inputs.plan import Work
from tasks.inputs.real import read_images, read_split
from tasks.inputs.stores import indexed
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import AutoencoderConfig, GivenAutoencoder, ImageConfig

if TYPE_CHECKING:
    from ddoq_core.encode.autoencoder import Autoencoder

VERSION = 3
PROBE_IMAGES = 16


def plan(recipe: Recipe, shard: Artifact) -> Work:
    """The autoencoder of a recipe."""
    config, images = recipe.autoencoder, recipe.images.for_encoding
    own = {} if isinstance(config, GivenAutoencoder) else {"batch": "in parts"}  # once it was added up as a whole
    settings = {"autoencoder": identity(config), "images": {**images.model_dump(), **images.filters}, **own}
    artifact = Artifact(shard.root, "autoencoder", VERSION, settings, {"shard": shard})
    expect_weights(artifact, config.weights, config.subfolder)
    return Work(artifact, autoencoder, (config, images), gpu=True)


def identity(config: AutoencoderConfig) -> dict[str, Any]:
    """The settings that matter: of a trained one, those of its kind."""
    unused = {"train": {"kind"} if config.train.kind == "kl" else {"kl_weight"}} if config.train else {}
    return config.model_dump(exclude=unused)


@task(task_run_name="autoencoder-{artifact.digest}")
@made_once
def autoencoder(artifact: Artifact, config: AutoencoderConfig, images: ImageConfig) -> State | str:
    """Train an autoencoder on the training images, or note which weights are used."""
    if isinstance(config, GivenAutoencoder):
        return _note_weights(artifact, config, images)
    from ddoq_core.encode.autoencoder import reconstruction_psnr
    from ddoq_core.encode.training import train_autoencoder

    clock = Clock()
    with clock("read"):
        shard, index = indexed(artifact.parents["shard"])
        real, _ = read_split(shard, index, "train", images)
        held_out, _ = read_split(shard, index, "val", images)
    with clock("compute"):
        shape = config.train.shape(images.size_px)
        settings = {**config.train.model_dump(), **shape, "num_threads": num_cores()}
        model, losses = train_autoencoder(real, **settings, checkpoint=DiskCheckpoint(artifact))
        facts = {"psnr_db": reconstruction_psnr(model, held_out), "losses": losses}
        precision = _precision(model, config, real[:: max(1, len(real) // PROBE_IMAGES)][:PROBE_IMAGES])
    with artifact.writing(MODEL, clock, {**facts, **precision}) as folder:
        model.network.save_pretrained(folder)
        write_json(folder / PRECISION, precision)
    return str(artifact)


def _note_weights(artifact: Artifact, config: GivenAutoencoder, images: ImageConfig) -> str:
    from ddoq_core.encode.autoencoder import load_autoencoder

    clock = Clock()
    with clock("read"):
        stamps = stamp_weights(config.weights, config.subfolder)
        told = {**identity_of(config.weights, stamps), "subfolder": config.subfolder}
        try:
            model = load_autoencoder(config.weights, config.subfolder)
            shape = model.latent_shape(images.size_px)
        except (OSError, ValueError, RuntimeError) as error:
            raise WeightsError(f"autoencoder.weights={config.weights!r} cannot be used: {error}") from error
        shard, index = indexed(artifact.parents["shard"])
        rows = index.rows("train")
        real = read_images(shard, index, rows[:: max(1, len(rows) // PROBE_IMAGES)][:PROBE_IMAGES], images)
    with clock("compute"):
        precision = _precision(model, config, real)
    with artifact.writing(MODEL, clock, {"latent_shape": shape, **precision, **facts_of(stamps)}) as folder:
        write_json(folder / ELSEWHERE, told)
        write_json(folder / PRECISION, precision)
    return str(artifact)


def _precision(model: Autoencoder, config: AutoencoderConfig, real: NDArray[np.uint8]) -> dict[str, Any]:
    """The floating-point type to encode in, and its relative error on real images (n, S, S, 3)."""
    from ddoq_core.encode.precision import choose_dtype

    dtype, error = choose_dtype(model, config.precision, real)
    if not math.isfinite(error):
        raise WeightsError(f"autoencoder.precision={config.precision} gives latents that are not finite: set float32")
    return {"precision": str(dtype).removeprefix("torch."), "latent_error": round(error, 5)}
