"""What the recipe's own prior draws from noise alone, and how much of it the teacher recognises; for the report."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.index import Index
from tasks.cluster import prototypes_of
from tasks.inputs.models import load_autoencoder, load_classifier, load_prior
from tasks.recipe.settings import Recipe
from tasks.shard import indexed

PER_CLASS, SHOWN = 20, 10


class Samples(NamedTuple):
    """Pictures (classes, SHOWN, S, S, 3) uint8, and by class (classes,) the share of PER_CLASS such pictures that the
    teacher takes for their class."""

    pictures: NDArray[np.uint8]
    recognised: NDArray[np.float64]


def draw_samples(scores: Mapping[str, Artifact], recipe: Recipe, num_classes: int) -> Samples | None:
    """Draw from the prior for the first num_classes classes, with the recipe's guidance and steps; at full strength
    nothing of a centroid is left. None without a prior of the recipe's own, a method that decodes through it, and a
    teacher.

    scores  the artifacts of the stage evaluate, by "method/architecture/seed"
    """
    if recipe.prior.train is None or not recipe.through_prior:
        return None
    student = scores[f"{recipe.through_prior[0]}/{recipe.train.architectures[0]}/{recipe.seeds[0]}"].parents["train"]
    labeller = student.parents.get("label", student).parents.get("teacher")
    if labeller is None:
        return None
    _, index = indexed(student.parents["shard"])
    labels = np.repeat(np.arange(len(index.classes[:num_classes])), PER_CLASS)
    pictures = _draw(student.parents["decode"], index, labels, recipe)
    from ddoq_core.train.accuracy import predict

    recognised = predict(load_classifier(labeller), pictures).argmax(1) == labels
    by_class = pictures.reshape(-1, PER_CLASS, *pictures.shape[1:])
    return Samples(by_class[:, :SHOWN], recognised.reshape(-1, PER_CLASS).mean(1))


def _draw(decoded: Artifact, index: Index, labels: NDArray[np.int64], recipe: Recipe) -> NDArray[np.uint8]:
    """Pictures (n, S, S, 3) of classes (n,), drawn from noise as an artifact of decode would be."""
    import torch

    from ddoq_core.decode.decoder import Decoder
    from ddoq_core.decode.memory import batch_size
    from ddoq_core.decode.noise import unit_seeds
    from ddoq_core.devices import best_device

    config = recipe.decode
    prior = load_prior(decoded.parents["prior"], config, index.classes).with_sampler(config.sampler)
    sample = partial(prior.sample, strength=1.0, guidance_scale=config.guidance_scale, num_steps=config.num_steps)
    model = load_autoencoder(decoded.parents["autoencoder"])
    shape = prototypes_of(decoded.parents["cluster"]).read_class(index.classes[0])["centroids"].shape[1:]
    size = batch_size(best_device(), *shape[1:])
    decoder = Decoder(model, sample, recipe.images.for_training.size_px, size)
    seeds = unit_seeds(len(labels), 0, "sample")
    return decoder(torch.zeros(len(labels), *shape), torch.from_numpy(labels), seeds)
