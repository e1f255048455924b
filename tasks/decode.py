"""Stage decode: pictures for every prototype, its medoid or its centroid decoded.

A picture's float sums depend in their rounding on the batch it is in. So batches are fixed by the class list alone,
never by what is missing: neighbouring classes whose pictures fit into one batch are a group, and a group is decoded
whole where any of its classes is missing. Runs on CPUs are therefore the same bit for bit, however cut or shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import sha256_of
from storage.index import Index
from tasks.inputs.cached import cached
from tasks.inputs.models import load_autoencoder, load_prior
from tasks.inputs.plan import Work, batches_of_classes
from tasks.inputs.real import read_images
from tasks.inputs.stores import images_of, index_of, latents_of, prototypes_of
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import DecodeConfig, ImageConfig, PriorConfig

VERSION = 2


READS = {"medoid": (), "autoencoder": ("autoencoder",), "diffusion": ("autoencoder", "prior")}
LATER = {"guided_channels", "mosaic"}  # settings that once were not: as they are by default, they are in no digest


def plan(recipe: Recipe, method: str, seed: int, prototypes: Artifact, models: Mapping[str, Artifact]) -> Work:
    """The pictures of a method. Of the models, "autoencoder" and "prior", it reads those that it decodes through."""
    config, images = recipe.settings_of(method).decode, recipe.images.for_training
    parents = {"cluster": prototypes, **{name: models[name] for name in READS[config.method]}}
    settings = {**identity(config, recipe.prior, seed), "size_px": images.size_px, **recipe.images.filters}
    label = f"{prototypes.label}-{config.method}"
    artifact = Artifact(prototypes.root, "decode", VERSION, settings, parents, label=label)
    class_names = index_of(prototypes).classes
    batches, gpu = batches_of_classes(class_names), config.method != "medoid"
    return Work(artifact, decode, (config, images, seed), units=len(class_names), batches=batches, gpu=gpu)


def identity(config: DecodeConfig, prior: PriorConfig, seed: int) -> dict[str, Any]:
    """The settings that matter to the method; a prior that knows no prompts has them as they are by default."""
    if config.method != "diffusion":
        return {"method": config.method, **config.model_dump(include={"mosaic"}, exclude_defaults=True)}
    own = {"shared names": "told apart"}  # once the prompts of both cranes were the same
    if prior.kind != "stable-diffusion":
        own = DecodeConfig().model_dump(include={"prompt", "negative_prompt"})
    later = config.model_dump(include=LATER, exclude_defaults=True)
    return {**config.model_dump(exclude=LATER), **later, **own, "seed": seed}


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
    index = index_of(artifact)
    wanted = units(artifact, index, class_names)
    missing = artifact.missing(wanted)
    if not missing and artifact.is_done():
        return cached(artifact)
    if missing:
        medoid, tile = config.method == "medoid", ImageConfig(size_px=images.size_px // config.mosaic)
        pictures = Medoids(artifact, tile, index) if medoid else Decoded(artifact, config, tile, index, seed)
        for group in pictures.groups(class_names):
            own = {name: wanted[name] for name in group if name in missing}
            _write_group(artifact, pictures, group, own, config.mosaic)
    artifact.finish_if_whole(len(index.classes), lambda: units(artifact, index))
    return str(artifact)


def _write_group(artifact: Artifact, pictures: Pictures, group: Any, missing: dict[str, str], mosaic: int) -> None:
    """Make a group's pictures if some of its classes are missing, and commit those (name → hash of inputs)."""
    if not missing:
        return
    together = Clock()
    found = pictures.of(group, together)
    for name, inputs in missing.items():
        clock, arrays = together.share(len(missing)), _in_mosaics(found[name], mosaic)
        with clock("write"):
            files = images_of(artifact).write_class(name, arrays, **pictures.attributes)
        artifact.commit(name, files, inputs=inputs, clock=clock, facts={"images": len(arrays["images"])})


Names = Sequence[str]
Arrays = dict[str, NDArray[Any]]


def _in_mosaics(tiles: Arrays, side: int) -> Arrays:
    """Mosaics (K, S, S, 3) uint8 of side² pictures each, and in rows (K, side²) what else is told of those; at side 1
    the pictures (n, S, S, 3) as they are."""
    from ddoq_core.images import to_mosaics

    if side == 1:
        return tiles
    told = {key: array.reshape(-1, side**2) for key, array in tiles.items() if key != "images"}
    return {"images": to_mosaics(tiles["images"], side), **told}


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
        from ddoq_core.devices import best_device
        from ddoq_core.memory import batch_size

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
