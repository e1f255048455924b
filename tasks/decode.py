"""Stage decode: pictures for every prototype, real ones of its cell or its centroid decoded; or real ones at random, or
given.

A picture's float sums depend in their rounding on the batch it is in. So batches are fixed by the class list alone,
never by what is missing: neighbouring packs of classes whose pictures fit into one batch are a group, and a group is
decoded whole where any of its packs is missing. Runs on CPUs are therefore the same bit for bit, however cut or shared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from prefect import State, task

from ddoq_core.seeds import derive_seed
from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import sha256_of
from storage.index import Index
from storage.lease import to_make
from storage.packs import Packs, neighbours
from tasks.inputs.cached import cached
from tasks.inputs.models import load_autoencoder, load_classifier, load_prior
from tasks.inputs.plan import Work, batches_of_classes
from tasks.inputs.real import read_images
from tasks.inputs.stores import images_of, index_of, latents_of, packed, prototypes_of
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import GIVEN_ALONE, PROMPTED, DecodeConfig, ImageConfig, PriorConfig
from tasks.sets.given import SetError
from tasks.sets.read import check_ipc, check_pictures, fit, open_set

VERSION = 3

Names = Sequence[str]
Arrays = dict[str, NDArray[Any]]

READS = {"autoencoder": ("autoencoder",), "diffusion": ("autoencoder", "prior")}
LATER = {"guided_channels", "start", "noise", "num_candidates", "mosaic"}
LATER |= {"centroid_guidance_to", "centroid_guidance_steps"}
LATER |= set(GIVEN_ALONE)  # once were not: as by default, they are in no digest


def plan(recipe: Recipe, method: str, seed: int, made_of: Artifact, models: Mapping[str, Artifact]) -> Work:
    """The pictures of a method, made of its prototypes, or without such of the stage shard's artifact. Of the models,
    "autoencoder", "prior" and "teacher", it reads those that it needs. Raises SetError for a given set that is not the
    recipe's."""
    config, images = recipe.settings_of(method).decode, recipe.images.for_training
    reads = (*READS.get(config.method, ()), *(["teacher"] if config.selects else []))
    parents = {made_of.stage: made_of, **{name: models[name] for name in reads}}
    class_names = index_of(made_of).classes
    if config.method == "given":
        own = given_identity(config, class_names, recipe.ipc)
    elif config.method == "random":
        own = {**identity(config, recipe.prior, seed), "num_points": recipe.num_points(method), "seed": seed}
    else:
        own = identity(config, recipe.prior, seed)
    settings = {**own, "size_px": images.size_px, **recipe.images.filters}
    label = f"{made_of.label}-{config.method}" if config.quantises else method
    artifact = Artifact(made_of.root, "decode", VERSION, settings, parents, label=label)
    packs, gpu = packed(artifact), config.method in READS or config.selects
    batches = batches_of_classes(packs)
    return Work(artifact, decode, (config, images, seed), units=len(packs.classes), batches=batches, gpu=gpu)


def identity(config: DecodeConfig, prior: PriorConfig, seed: int) -> dict[str, Any]:
    """The settings that matter to the method; a prior that knows no prompts has them as they are by default."""
    if config.method == "member":
        told = config.model_dump(include={"mosaic", "num_candidates"}, exclude_defaults=True)
        return {"method": "member", **told, "seed": seed}
    if config.method != "diffusion":
        return {"method": config.method, **config.model_dump(include={"mosaic"}, exclude_defaults=True)}
    own = {"shared names": "told apart"}  # once the prompts of both cranes were the same
    if prior.kind not in PROMPTED:
        own = DecodeConfig().model_dump(include={"prompt", "negative_prompt"})
    later = config.model_dump(include=LATER, exclude_defaults=True)
    return {**config.model_dump(exclude=LATER), **later, **own, "seed": seed}


def given_identity(config: DecodeConfig, class_names: Names, ipc: int) -> dict[str, Any]:
    """What identifies a given set: its content and how it is read. Raises SetError for one that does not fit."""
    given = fit(open_set(config), class_names, config.class_order)
    check_ipc(given, ipc)
    check_pictures(given.given, config)
    read = config.model_dump(include={"value_range", "mean", "std"}, exclude_none=True)
    classes = [int(k) for k in given.own]
    return {
        "method": "given",
        "content": given.given.content(),
        "classes": sha256_of(classes),
        "num_points": ipc,
        **read,
    }


def units(artifact: Artifact, names: Names | None = None) -> dict[str, str]:
    """Packs, some or all, each with the hash of its prototypes and of the models; without prototypes, of what all are
    made of."""
    packs = packed(artifact)
    if "cluster" not in artifact.parents:
        return dict.fromkeys(names or packs.classes, sha256_of(artifact.inputs()))
    models = {k: parent.content() for k, parent in artifact.parents.items() if k in ("autoencoder", "prior", "teacher")}
    prototypes = artifact.parents["cluster"]
    places, found = packed(prototypes), {}
    for pack in names or packs.classes:
        read = dict.fromkeys(places.place(name)[0] for name in packs.classes[pack])
        marks = [prototypes.mark(unit) for unit in read]
        found[pack] = sha256_of([models, [mark.content if mark else None for mark in marks]])
    return found


@task(task_run_name="decode-{artifact.label}-{artifact.digest}-{batch}")
def decode(
    artifact: Artifact,
    config: DecodeConfig,
    images: ImageConfig,
    seed: int,
    names: tuple[str, ...],
    batch: str,
) -> State | str:
    """Decode each of these packs that the store does not hold yet."""
    index, packs = index_of(artifact), packed(artifact)
    wanted = units(artifact, names)
    missing = artifact.missing(wanted)
    if not missing and artifact.is_done():
        return cached(artifact)
    if missing:
        tile = ImageConfig(size_px=images.size_px // config.mosaic)
        pictures = pictures_of(artifact, config, tile, index, seed)
        num_classes = {pack: len(packs.classes[pack]) for pack in names}
        groups = neighbours(num_classes, pictures.classes_together)
        for group, own in to_make(artifact, wanted, groups):
            _write_group(artifact, pictures, packs, group, {pack: wanted[pack] for pack in own}, config.mosaic)
    artifact.finish_if_whole(len(packs.classes), lambda: units(artifact))
    return str(artifact)


def pictures_of(artifact: Artifact, config: DecodeConfig, images: ImageConfig, index: Index, seed: int) -> Pictures:
    """How the pictures of a method are made."""
    if config.method == "medoid":
        return Medoids(artifact, images, index)
    if config.method == "member":
        return Members(artifact, config, images, index, seed)
    if config.method == "random":
        return RandomImages(artifact, images, index, seed)
    if config.method == "given":
        return Given(artifact, config, images, index)
    return Decoded(artifact, config, images, index, seed)


def _write_group(
    artifact: Artifact, pictures: Pictures, packs: Packs, group: Names, missing: dict[str, str], mosaic: int
) -> None:
    """Make the pictures of a group of packs, and commit the packs that are missing (name → hash of inputs)."""
    together = Clock()
    found = pictures.of([name for pack in group for name in packs.classes[pack]], together)
    for pack, inputs in missing.items():
        clock, own = together.share(len(missing)), packs.classes[pack]
        arrays = {name: _in_mosaics(found[name], mosaic) for name in own}
        with clock("write"):
            files = images_of(artifact).write_pack(pack, arrays, **pictures.attributes)
        facts = {"images": sum(len(of_class["images"]) for of_class in arrays.values()), "classes": own}
        artifact.commit(pack, files, inputs=inputs, clock=clock, facts=facts)


def _in_mosaics(tiles: Arrays, side: int) -> Arrays:
    """Mosaics (K, S, S, 3) uint8 of side² pictures each, and in rows (K, side²) what else is told of those; at side 1
    the pictures (n, S, S, 3) as they are."""
    from ddoq_core.images import to_mosaics

    if side == 1:
        return tiles
    told = {key: array.reshape(-1, side**2) for key, array in tiles.items() if key != "images"}
    return {"images": to_mosaics(tiles["images"], side), **told}


class Pictures(Protocol):
    """Pictures of classes, group by group.

    attributes        how they were made
    classes_together  as many are a group, if a pack has no more
    """

    attributes: dict[str, Any]
    classes_together: int

    def of(self, group: Names, clock: Clock) -> dict[str, Arrays]:
        """Per class images (n, S, S, 3) uint8, the centroid (n,) of each, the seed (n,) of its noise, if any, and the
        teacher's score (n,) of one chosen."""


class OneByOne(ABC):
    """Pictures that need no model, each pack alone."""

    attributes: dict[str, Any]
    classes_together = 1

    def of(self, group: Names, clock: Clock) -> dict[str, Arrays]:
        with clock("read"):
            return {name: self.of_class(name) for name in group}

    @abstractmethod
    def of_class(self, name: str) -> Arrays:
        """What `of` finds of a class."""


class Medoids(OneByOne):
    """The real image nearest to each centroid."""

    def __init__(self, artifact: Artifact, images: ImageConfig, index: Index) -> None:
        self.prototypes, self.images, self.index = artifact.parents["cluster"], images, index
        self.attributes = {"method": "medoid"}

    def of_class(self, name: str) -> Arrays:
        medoids = prototypes_of(self.prototypes).read_class(name)["medoids"]
        pictures = _real_images(self.prototypes, self.index, self.images, name, medoids)
        return {"images": pictures, "centroid": np.arange(len(pictures))}


class Members(OneByOne):
    """A real image of each cell: one at random, or of several that which the teacher chooses."""

    def __init__(self, artifact: Artifact, config: DecodeConfig, images: ImageConfig, index: Index, seed: int) -> None:
        self.prototypes, self.images, self.index = artifact.parents["cluster"], images, index
        self.config, self.seed = config, seed
        self.teacher = load_classifier(artifact.parents["teacher"]) if config.selects else None
        self.attributes = {"method": "member", "seed": seed}

    def of(self, group: Names, clock: Clock) -> dict[str, Arrays]:
        found = super().of(group, clock)
        if self.teacher is None:
            return found
        with clock("compute"):
            ids = {name: self.index.classes.index(name) for name in group}
            return {name: chosen(self.teacher, found[name], ids[name], self.config) for name in group}

    def of_class(self, name: str) -> Arrays:
        """All candidates: the first of each cell, the second of each and so on."""
        members = members_of(self.prototypes, name, self.config.num_candidates, self.seed)  # (K, n)
        centroid, member = np.tile(np.arange(len(members)), members.shape[1]), members.T.ravel()
        pictures = _real_images(self.prototypes, self.index, self.images, name, member)
        return {"images": pictures, "centroid": centroid, "member": member}


class RandomImages(OneByOne):
    """Real images of each class at random, drawn without replacement."""

    def __init__(self, artifact: Artifact, images: ImageConfig, index: Index, seed: int) -> None:
        self.shard, self.images, self.index = artifact.parents["shard"], images, index
        self.seed, self.num_points = seed, artifact.config["num_points"]
        self.attributes = {"method": "random", "seed": seed}

    def of_class(self, name: str) -> Arrays:
        rng = np.random.default_rng(derive_seed(self.seed, "random", name))
        rows = rng.choice(self.index.rows("train", name), self.num_points, replace=False)
        pictures = read_images(self.shard, self.index, rows, self.images)
        return {"images": pictures, "centroid": np.arange(len(pictures))}


class Given(OneByOne):
    """The pictures of somebody's set, brought to size where they have another, with its weights and soft labels."""

    def __init__(self, artifact: Artifact, config: DecodeConfig, images: ImageConfig, index: Index) -> None:
        self.set, self.images, self.index = fit(open_set(config), index.classes, config.class_order), images, index
        if self.set.given.content() != artifact.config["content"]:
            raise SetError(f"{config.path} has changed since the run began: run the same command again")
        self.attributes = {"method": "given"}

    def of(self, group: Names, clock: Clock) -> dict[str, Arrays]:
        self.attributes["given_px"] = []
        return super().of(group, clock)

    def of_class(self, name: str) -> Arrays:
        from ddoq_core.images import preprocess

        given, rows = self.set.given, self.set.rows[self.index.classes.index(name)]
        pictures = [given.picture(int(row)) for row in rows]
        self.attributes["given_px"] = sorted({*self.attributes["given_px"], *(picture.size for picture in pictures)})
        images = np.stack([preprocess(picture, self.images.size_px, self.images.resize) for picture in pictures])
        return {
            "images": images,
            "centroid": np.arange(len(rows)),
            **({} if given.weights is None else {"weight": given.weights[rows]}),
            **({} if given.logits is None else {"logits": given.logits[rows][:, self.set.own]}),
        }


class Decoded:
    """Centroids through the autoencoder, and before it through the prior if the method is diffusion."""

    def __init__(self, artifact: Artifact, config: DecodeConfig, images: ImageConfig, index: Index, seed: int) -> None:
        from ddoq_core.decode.decoder import Decoder
        from ddoq_core.devices import best_device
        from ddoq_core.memory import batch_size

        self.prototypes, self.config, self.index, self.seed = artifact.parents["cluster"], config, index, seed
        self.noisy, sample = config.method == "diffusion", None
        self.transports = self.noisy and config.centroid_guidance > 0 and config.centroid_guidance_to == "transport"
        self.num_draws, self.num_candidates = (config.num_draws, config.num_candidates) if self.noisy else (1, 1)
        if self.noisy:
            prior = load_prior(artifact.parents["prior"], config, index.classes).with_sampler(config.sampler)
            sample = partial(prior.sample, **config.sampling)
        self.teacher = load_classifier(artifact.parents["teacher"]) if config.selects else None
        self.attributes: dict[str, Any] = {"method": config.method, "seed": seed, "resize": "bicubic"}
        self.num_points, _, *side = prototypes_of(self.prototypes).shape_of(index.classes[0], "centroids")
        self.batch_size = batch_size(best_device(), *side)
        self.classes_together = max(1, self.batch_size // (self.num_points * self.num_draws * self.num_candidates))
        model = load_autoencoder(artifact.parents["autoencoder"])
        self.decoder = Decoder(model, sample, images.size_px, self.batch_size)

    def of(self, group: Names, clock: Clock) -> dict[str, Arrays]:
        import torch

        labels = [self.index.classes.index(name) for name in group]
        with clock("read"):
            points = [self._points(name) for name in group]
        with clock("compute"):
            z, seeds = (np.concatenate([part[key] for part in points]) for key in ("z", "seed"))
            num = len(z) // len(group)  # of a class
            masses = None
            if self.transports:
                own = [self._masses(name, part["centroid"]) for name, part in zip(group, points, strict=True)]
                masses = torch.from_numpy(np.concatenate(own))
            y = torch.from_numpy(np.repeat(labels, num))
            pictures = self.decoder(torch.from_numpy(z), y, seeds.tolist(), masses)
            found: dict[str, Arrays] = {}
            for name, label, part, images in zip(group, labels, points, np.split(pictures, len(group)), strict=True):
                kept = {key: array for key, array in part.items() if key != "z" and (self.noisy or key != "seed")}
                arrays = {"images": images, **kept}
                found[name] = chosen(self.teacher, arrays, label, self.config) if self.config.selects else arrays
        return found

    def _points(self, name: str) -> Arrays:
        """What is decoded of a class, n in number: latents z (n, C, H, W), and the centroid and the seed of each.

        The first draw of each centroid, the second of each and so on, then the same again for other candidates.
        """
        from ddoq_core.decode.noise import residuals_of, unit_seeds

        centroids = prototypes_of(self.prototypes).read_array(name, "centroids")  # (K, C, H, W)
        draws = [("draw", k) if k else () for k in range(self.num_draws)]
        units = [(*draw, *(("candidate", k) if k else ())) for k in range(self.num_candidates) for draw in draws]
        seeds = [seed for unit in units for seed in unit_seeds(self.num_points, self.seed, name, *unit)]
        centroid = np.tile(np.arange(self.num_points), len(units))
        told = {"centroid": centroid, "seed": np.array(seeds)}
        if self.noisy and self.config.start == "member":
            member = members_of(self.prototypes, name, len(units), self.seed).T.ravel()
            latents = latents_of(self.prototypes.parents["encode"])
            return {"z": latents.read_some(name, member).astype(np.float32), "member": member, **told}
        z = centroids[centroid]
        if self.noisy and self.config.noise != "plain":
            z = z + self._deviation(name, centroids)[centroid] * residuals_of(seeds, z.shape[1:])
        return {"z": z, **told}

    def _masses(self, name: str, centroid: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of the centroids (n,) of what is decoded of a class, the shares of its images."""
        counts = prototypes_of(self.prototypes).read_array(name, "counts")
        return np.asarray(counts[centroid] / counts.sum())

    def _deviation(self, name: str, centroids: NDArray[Any]) -> NDArray[np.float32]:
        """σ (K, C, 1, 1) of what quantisation left out of each cell, or of the class."""
        from ddoq_core.decode.noise import residual_variance

        store, latents = prototypes_of(self.prototypes), latents_of(self.prototypes.parents["encode"])
        assignment, counts = (store.read_array(name, key) for key in ("assignment", "counts"))
        variance = residual_variance(latents.read_blocks(name), centroids, assignment)  # (K, C)
        if self.config.noise == "class":
            variance[:] = np.average(variance, axis=0, weights=counts)
        return np.sqrt(variance)[:, :, None, None]


def _real_images(
    prototypes: Artifact, index: Index, images: ImageConfig, name: str, which: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Pictures (m, S, S, 3) of some images (m,) of a class, counted as its latents are."""
    latents = prototypes.parents["encode"]
    return read_images(latents.parents["shard"], index, latents_of(latents).read_rows(name)[which], images)


def members_of(prototypes: Artifact, name: str, num: int, seed: int) -> NDArray[np.int64]:
    """Of each cell of a class so many of its latents at random, (K, num), see draw_members."""
    from ddoq_core.decode.selection import draw_members

    assignment, medoids = (prototypes_of(prototypes).read_array(name, key) for key in ("assignment", "medoids"))
    return draw_members(assignment, medoids, num, derive_seed(seed, "members", name))


def chosen(teacher: Any, arrays: Arrays, label: int, config: DecodeConfig) -> Arrays:
    """Of a class's pictures the candidates that are chosen, with their scores; tiles are seen as by students."""
    from PIL.Image import Resampling

    from ddoq_core.decode.selection import cross_entropy, select
    from ddoq_core.images import resized
    from ddoq_core.train.accuracy import features, predict

    pictures = resized(arrays["images"], config.mosaic * arrays["images"].shape[1], Resampling.BILINEAR)
    scores = cross_entropy(predict(teacher, pictures), np.full(len(pictures), label))
    shape = (config.num_candidates, -1)
    seen = features(teacher, pictures)
    of_candidates = seen.reshape(*shape, seen.shape[1]).swapaxes(0, 1)  # (K, n, d)
    kept = select(scores.reshape(shape).T, of_candidates)
    rows = kept * len(kept) + np.arange(len(kept))
    return {**{key: array[rows] for key, array in arrays.items()}, "score": scores[rows]}
