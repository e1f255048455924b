"""Stage sample: what the recipe's own prior draws from noise alone, and how much of it the teacher recognises."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.zarr_store import ClassStore
from tasks.inputs.cached import cached
from tasks.inputs.models import load_autoencoder, load_classifier, load_prior
from tasks.inputs.plan import Work
from tasks.inputs.stores import SAMPLES, index_of, latents_of, some_classes
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import DecodeConfig, ImageConfig

VERSION = 2
PER_CLASS, SHOWN = 20, 10  # drawn and kept of a class


def plan(recipe: Recipe, latents: Artifact, models: Mapping[str, Artifact]) -> Work:
    """Samples of the recipe's prior, with its guidance and steps. Reads "autoencoder", "prior" and "teacher"."""
    config, images = recipe.decode, recipe.images.for_training
    settings = {**config.model_dump(include={"guidance_scale", "num_steps", "sampler"}), "size_px": images.size_px}
    parents = {"encode": latents, **{name: models[name] for name in ("autoencoder", "prior", "teacher")}}
    artifact = Artifact(latents.root, "sample", VERSION, settings, parents)
    return Work(artifact, sample, (config, images), gpu=True)


@task(task_run_name="sample-{artifact.digest}")
def sample(artifact: Artifact, config: DecodeConfig, images: ImageConfig) -> State | str:
    """Draw pictures of some classes from noise; at full strength nothing of a centroid is left. `recognised` is by
    class the share that the teacher takes for that class."""
    if artifact.is_done():
        return cached(artifact)
    from ddoq_core.train.accuracy import predict

    clock, index = Clock(), index_of(artifact)
    names = some_classes(index)
    labels = np.repeat([index.classes.index(name) for name in names], PER_CLASS)
    with clock("compute"):
        pictures = _drawn(artifact, config, images, labels)
        recognised = predict(load_classifier(artifact.parents["teacher"]), pictures).argmax(1) == labels
    by_class = pictures.reshape(-1, PER_CLASS, *pictures.shape[1:])
    facts = {"recognised": recognised.reshape(-1, PER_CLASS).mean(1).tolist(), "per_class": PER_CLASS}
    with artifact.writing(SAMPLES, clock, facts) as folder:
        for name, own in zip(names, by_class, strict=True):
            ClassStore(folder).write_class(name, {"images": own[:SHOWN]})
    return str(artifact)


def _drawn(
    artifact: Artifact, config: DecodeConfig, images: ImageConfig, labels: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Pictures (n, S, S, 3) of classes (n,), drawn from noise as the stage decode would."""
    import torch

    from ddoq_core.decode.decoder import Decoder
    from ddoq_core.decode.memory import batch_size
    from ddoq_core.decode.noise import unit_seeds
    from ddoq_core.devices import best_device

    class_names = index_of(artifact).classes
    prior = load_prior(artifact.parents["prior"], config, class_names).with_sampler(config.sampler)
    draw = partial(prior.sample, strength=1.0, guidance_scale=config.guidance_scale, num_steps=config.num_steps)
    model = load_autoencoder(artifact.parents["autoencoder"])
    shape = latents_of(artifact.parents["encode"]).shape_of(class_names[0])
    decoder = Decoder(model, draw, images.size_px, batch_size(best_device(), *shape[1:]))
    return decoder(torch.zeros(len(labels), *shape), torch.from_numpy(labels), unit_seeds(len(labels), 0, "sample"))
