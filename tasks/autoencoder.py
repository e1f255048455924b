"""Stage autoencoder: train the recipe's own small autoencoder, or check the weights it names."""

from __future__ import annotations

import json

from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from tasks.config import AutoencoderConfig, ImageConfig
from tasks.models import MODEL, WeightsError, describe_weights
from tasks.outcome import DiskKeeper, cached
from tasks.real import read_split
from tasks.shard import indexed

VERSION = 2


@task(task_run_name="autoencoder-{artifact.digest}")
def autoencoder(artifact: Artifact, config: AutoencoderConfig, images: ImageConfig) -> State | str:
    """Train an AutoencoderKL on the training images, or note which weights are used."""
    if artifact.is_done():
        return cached(artifact)
    if config.train is None:
        return _note_weights(artifact, config, images)
    from ddoq_core import autoencoder as core

    clock = Clock()
    with clock("read"):
        shard, index = indexed(artifact.parents["shard"])
        real, _ = read_split(shard, index, "train", images)
        held_out, _ = read_split(shard, index, "val", images)
    with clock("compute"):
        model, losses = core.train_autoencoder(real, **config.train.model_dump(), keeper=DiskKeeper(artifact))
        facts = {"psnr_db": core.reconstruction_psnr(model, held_out), "losses": losses}
    with artifact.writing(MODEL, clock, facts) as folder:
        model.save_pretrained(folder)
    return str(artifact)


def _note_weights(artifact: Artifact, config: AutoencoderConfig, images: ImageConfig) -> str:
    from ddoq_core import autoencoder as core

    assert config.weights is not None
    clock = Clock()
    with clock("read"):
        told = {**describe_weights(config.weights), "subfolder": config.subfolder}
        try:
            model = core.load_autoencoder(config.weights, config.subfolder)
            shape = core.latent_shape(model, images.size_px)
        except (OSError, ValueError) as error:
            raise WeightsError(f"autoencoder.weights={config.weights!r} cannot be used: {error}") from error
    with artifact.writing(MODEL, clock, {"latent_shape": shape}) as folder:
        (folder / "weights.json").write_text(json.dumps(told))
    return str(artifact)
