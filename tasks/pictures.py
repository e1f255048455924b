"""What the stage decode writes for each class: its prototypes' medoids, or their centroids decoded in batches.

A picture's float sums depend in their rounding on the batch it is in. So batches are fixed by the class list alone,
never by what is missing: neighbouring classes whose pictures fit into one batch are a group, and a group is decoded
whole where any of its classes is missing. Runs on CPUs are therefore the same bit for bit, however cut or shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import Index
from tasks.cluster import prototypes_of
from tasks.encode import latents_of
from tasks.inputs.models import load_autoencoder, load_prior
from tasks.inputs.real import read_images
from tasks.recipe.settings import DecodeConfig, ImageConfig

Names = Sequence[str]
Arrays = dict[str, NDArray[Any]]


class Pictures(Protocol):
    """Pictures of classes, group by group. `attributes` say how they were made."""

    attributes: dict[str, Any]

    def groups(self, names: Names) -> list[Names]:
        """The classes, in the groups in which their pictures are made."""

    def of(self, group: Names, clock: Clock) -> dict[str, Arrays]:
        """Per class images (n, S, S, 3) uint8, the centroid (n,) of each, and the seed (n,) of its noise, if any."""


class Medoids:
    """The real image nearest to each centroid."""

    def __init__(self, artifact: Artifact, images: ImageConfig, index: Index) -> None:
        self.prototypes, self.images, self.index = artifact.parents["cluster"], images, index
        self.attributes: dict[str, Any] = {"method": "medoid"}

    def groups(self, names: Names) -> list[Names]:
        return [(name,) for name in names]

    def of(self, group: Names, clock: Clock) -> dict[str, Arrays]:
        latents = self.prototypes.parents["encode"]
        found: dict[str, Arrays] = {}
        with clock("read"):
            for name in group:
                medoids = prototypes_of(self.prototypes).read_class(name)["medoids"]
                rows = latents_of(latents).read_rows(name)[medoids]
                pictures = read_images(latents.parents["shard"], self.index, rows, self.images)
                found[name] = {"images": pictures, "centroid": np.arange(len(pictures))}
        return found


class Decoded:
    """Centroids through the autoencoder, and before it through the prior if the method is diffusion."""

    def __init__(self, artifact: Artifact, config: DecodeConfig, images: ImageConfig, index: Index, seed: int) -> None:
        from ddoq_core.decode.decoder import Decoder
        from ddoq_core.decode.memory import batch_size
        from ddoq_core.devices import best_device

        self.store, self.index, self.seed = prototypes_of(artifact.parents["cluster"]), index, seed
        self.noisy, sample = config.method == "diffusion", None
        self.num_draws = config.num_draws if self.noisy else 1
        if self.noisy:
            prior = load_prior(artifact.parents["prior"], config, index.classes).with_sampler(config.sampler)
            sample = partial(prior.sample, **config.sampling)
        self.attributes: dict[str, Any] = {"method": config.method, "seed": seed, "resize": "lanczos"}
        self.num_points, _, *side = self.store.read_class(index.classes[0])["centroids"].shape
        self.batch_size = batch_size(best_device(), *side)
        model = load_autoencoder(artifact.parents["autoencoder"])
        self.decoder = Decoder(model, sample, images.size_px, self.batch_size)

    def groups(self, names: Names) -> list[Names]:
        size = max(1, self.batch_size // (self.num_points * self.num_draws))
        return [names[k : k + size] for k in range(0, len(names), size)]

    def of(self, group: Names, clock: Clock) -> dict[str, Arrays]:
        import torch

        with clock("read"):
            z = np.stack([self.store.read_class(name)["centroids"] for name in group])  # (classes, K, C, H, W)
        centroid = np.tile(np.arange(self.num_points), self.num_draws)
        seeds = np.array([self._seeds(name) for name in group])  # (classes, n)
        labels = np.repeat([self.index.classes.index(name) for name in group], len(centroid))
        with clock("compute"):
            flat = torch.from_numpy(z[:, centroid]).flatten(0, 1)
            pictures = self.decoder(flat, torch.from_numpy(labels), seeds.flatten().tolist())
        parts = zip(group, pictures.reshape(len(group), -1, *pictures.shape[1:]), seeds, strict=True)
        return {
            name: {"images": x, "centroid": centroid, **({"seed": own} if self.noisy else {})} for name, x, own in parts
        }

    def _seeds(self, name: str) -> list[int]:
        """Seeds (n,) of a class: the first draw of each centroid, then the second of each, and so on."""
        from ddoq_core.decode.noise import unit_seeds

        later = [("draw", draw) for draw in range(1, self.num_draws)]
        return [seed for more in [(), *later] for seed in unit_seeds(self.num_points, self.seed, name, *more)]
