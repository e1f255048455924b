"""Stage decode: a picture for every prototype."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import sha256_of
from storage.index import Index
from storage.zarr_store import ClassStore
from tasks.cluster import prototypes_of
from tasks.config import DecodeConfig, ImageConfig
from tasks.encode import latents_of
from tasks.models import load_autoencoder, load_prior
from tasks.outcome import cached
from tasks.real import read_images
from tasks.shard import indexed

VERSION = 1
STORE = "images.zarr"
BATCH_IMAGES = 50  # decoded together; sub-batches never cross a class, so pictures do not depend on what is missing


def images_of(artifact: Artifact) -> ClassStore:
    """The store of a decode artifact."""
    return ClassStore(artifact.path / STORE)


def identity(config: DecodeConfig, seed: int) -> dict[str, Any]:
    """The settings that matter to the method."""
    if config.method != "diffusion":
        return {"method": config.method}
    return {**config.model_dump(), "seed": seed}


def units(artifact: Artifact, index: Index, class_names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Classes, each with the hash of its prototypes and of the models."""
    models = {k: parent.content() for k, parent in artifact.parents.items() if k in ("autoencoder", "prior")}
    prototypes = artifact.parents["cluster"]
    marks = {name: prototypes.mark(name) for name in class_names or index.classes}
    return {name: sha256_of([models, mark.content if mark else None]) for name, mark in marks.items()}


@task(task_run_name="decode-{artifact.label}-{artifact.digest}-{batch}")
def decode(
    artifact: Artifact, config: DecodeConfig, images: ImageConfig, seed: int, class_names: tuple[str, ...], batch: str
) -> State | str:
    """Decode each of these classes that the store does not hold yet."""
    latents = artifact.parents["cluster"].parents["encode"]
    shard, index = indexed(latents.parents["shard"])
    wanted = units(artifact, index, class_names)
    missing = artifact.missing(wanted)
    if not missing and artifact.is_done():
        return cached(artifact)
    for name in missing:
        clock = Clock()
        with clock("read"):
            prototypes = prototypes_of(artifact.parents["cluster"]).read_class(name)
            if config.method == "medoid":
                rows = latents_of(latents).read_rows(name)[prototypes["medoids"]]
                pictures = read_images(shard, index, rows, images)
        with clock("compute"):
            if config.method != "medoid":
                pictures = _decode_class(artifact, config, index, name, prototypes["centroids"], seed)
        with clock("write"):
            files = images_of(artifact).write_class(name, {"images": pictures}, seed=seed, method=config.method)
        artifact.commit(name, files, inputs=wanted[name], clock=clock, facts={"images": len(pictures)})
    artifact.finish_if_whole(len(index.classes), lambda: units(artifact, index))
    return str(artifact)


def _decode_class(
    artifact: Artifact, config: DecodeConfig, index: Index, name: str, centroids: NDArray[np.float32], seed: int
) -> NDArray[np.uint8]:
    """Pictures (K, S, S, 3) of centroids (K, C, H, W)."""
    import torch

    from ddoq_core import autoencoder as core
    from ddoq_core.prior import unit_noise

    model = load_autoencoder(artifact.parents["autoencoder"])
    z = torch.from_numpy(centroids)
    if config.method == "diffusion":
        prior = load_prior(artifact.parents["prior"], config, index.classes)
        noise = unit_noise(tuple(z.shape), seed, name)
        label = torch.full((len(z),), index.classes.index(name))
        z = torch.cat(
            [
                prior.sample(
                    z[k : k + BATCH_IMAGES],
                    label[k : k + BATCH_IMAGES],
                    noise[k : k + BATCH_IMAGES],
                    strength=config.strength,
                    guidance_scale=config.guidance_scale,
                    num_steps=config.num_steps,
                )
                for k in range(0, len(z), BATCH_IMAGES)
            ]
        )
    return np.concatenate([core.decode(model, z[k : k + BATCH_IMAGES]) for k in range(0, len(z), BATCH_IMAGES)])
