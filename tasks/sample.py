"""Stage sample: what the prior draws from noise alone, and how near it is to real images in the teacher's eyes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import Index
from storage.zarr_store import ClassStore
from tasks.inputs import meanings
from tasks.inputs.cached import made_once
from tasks.inputs.models import load_autoencoder, load_classifier, load_prior
from tasks.inputs.plan import Work
from tasks.inputs.real import read_images
from tasks.inputs.stores import SAMPLES, index_of, indexed, latents_of, some_classes, some_rows
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import PROMPTED, DecodeConfig, ImageConfig

VERSION = 3
PER_CLASS, SHOWN = 20, 10  # drawn and kept of a class
MOST_REAL = 100  # held-out images of a class
TOO_WEAK = 0.5  # a prior of whose pictures the teacher recognises less than this share of what it does of real ones


def plan(recipe: Recipe, latents: Artifact, models: Mapping[str, Artifact]) -> Work:
    """Samples of the recipe's prior, with its guidance and steps. Reads "autoencoder", "prior" and "teacher"."""
    config, images = recipe.decode, recipe.images.for_training
    told = {"prompt", "negative_prompt"} if recipe.prior.kind in PROMPTED else set()
    settings = config.model_dump(include={"guidance_scale", "guided_channels", "num_steps", "sampler", *told})
    parents = {"encode": latents, **{name: models[name] for name in ("autoencoder", "prior", "teacher")}}
    artifact = Artifact(latents.root, "sample", VERSION, {**settings, "size_px": images.size_px}, parents)
    return Work(artifact, sample, (config, images), gpu=True)


@task(task_run_name="sample-{artifact.digest}")
@made_once
def sample(artifact: Artifact, config: DecodeConfig, images: ImageConfig) -> State | str:
    """Draw pictures of some classes from noise; at full strength nothing of a centroid is left.

    recognised   by class the share that the teacher takes for that class
    drawn, real  how near the drawn pictures are to held-out images, and as many training images are, as `nearness` says
    closest      the least distance to a training image of the class, of latents; see ddoq_core.measure.samples.nearest
    Of each class the closest picture and its training image are kept as "closest".
    """
    from ddoq_core.train.accuracy import predict

    clock = Clock()
    shard, index = indexed(artifact.ancestor("shard"))
    names, teacher = some_classes(index), load_classifier(artifact.parents["teacher"])
    ids = [index.classes.index(name) for name in names]
    labels = np.repeat(ids, PER_CLASS)
    with clock("read"):
        held_out, _ = real_images(shard, index, "val", MOST_REAL, images)
        training, own = real_images(shard, index, "train", PER_CLASS, images)
    with clock("compute"):
        z, pictures = _drawn(artifact, config, images, labels)
        recognised = predict(teacher, pictures).argmax(1) == labels
        facts = {
            "recognised": recognised.reshape(-1, PER_CLASS).mean(1).tolist(),
            "per_class": PER_CLASS,
            "drawn": nearness(teacher, held_out, pictures, labels),
            "real": nearness(teacher, held_out, training, own),
        }
        closest = [_closest(artifact, name, z[labels == c]) for c, name in zip(ids, names, strict=True)]
        facts["closest"] = min(share for _, _, share in closest)
    if warning := weakness(facts["drawn"]["recognised"], facts["real"]["recognised"]):
        logging.getLogger(__name__).warning(warning)
        facts["warning"] = warning
    with artifact.writing(SAMPLES, clock, facts) as folder:
        for c, name, (drawn, row, _) in zip(ids, names, closest, strict=True):
            mine = pictures[labels == c]
            pair = np.stack([mine[drawn], read_images(shard, index, np.array([row]), images)[0]])
            ClassStore(folder, meanings=meanings.SAMPLES).write_class(name, {"images": mine[:SHOWN], "closest": pair})
    return str(artifact)


def nearness(
    teacher: Any, held_out: NDArray[np.uint8], pictures: NDArray[np.uint8], labels: NDArray[np.int64]
) -> dict[str, float]:
    """The share of pictures (n, S, S, 3) that the teacher recognises, and their Fréchet distance, precision and recall
    against held-out images (m, S, S, 3) in its features."""
    from ddoq_core.measure.samples import frechet_distance, precision_recall
    from ddoq_core.train.accuracy import features, predict

    real, seen = features(teacher, held_out), features(teacher, pictures)
    precision, recall = precision_recall(real, seen)
    return {
        "recognised": float((predict(teacher, pictures).argmax(1) == labels).mean()),
        "frechet": frechet_distance(real, seen),
        "precision": precision,
        "recall": recall,
    }


def weakness(drawn: float, real: float) -> str | None:
    """What to say of a prior where the teacher recognises this share of its pictures, and that of real ones."""
    if drawn >= TOO_WEAK * real:
        return None
    return (
        f"the prior is too weak to decode through: the teacher recognises {drawn:.1%} of what it draws and {real:.1%} "
        "of real images; train it longer (prior.train.num_steps), or distil by decode.method=medoid"
    )


def real_images(
    shard: Artifact, index: Index, split: str, most: int, images: ImageConfig
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, S, S, 3) of a split and their labels (n,), at most so many of each of some classes."""
    rows = np.concatenate(some_rows(index, split, most))
    return read_images(shard, index, rows, images), index.labels(rows)


def _drawn(
    artifact: Artifact, config: DecodeConfig, images: ImageConfig, labels: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Latents (n, C, H, W) and pictures (n, S, S, 3) of classes (n,), drawn from noise as the stage decode would."""
    import torch

    from ddoq_core.decode.decoder import Decoder
    from ddoq_core.decode.noise import unit_seeds
    from ddoq_core.devices import best_device
    from ddoq_core.memory import batch_size

    class_names = index_of(artifact).classes
    prior = load_prior(artifact.parents["prior"], config, class_names).with_sampler(config.sampler)
    settings = {**config.sampling, "strength": 1.0, "inversion": False, "centroid_guidance": 0.0}
    model = load_autoencoder(artifact.parents["autoencoder"])
    shape = latents_of(artifact.parents["encode"]).shape_of(class_names[0])
    decoder = Decoder(model, partial(prior.sample, **settings), images.size_px, batch_size(best_device(), *shape[1:]))
    seeds = unit_seeds(len(labels), 0, "sample")
    z = decoder.latents(torch.zeros(len(labels), *shape), torch.from_numpy(labels), seeds)
    return z.float().cpu().numpy(), decoder.pictures(z)


def _closest(artifact: Artifact, name: str, z: NDArray[np.float32]) -> tuple[int, int, float]:
    """Which of a class's latents (n, C, H, W) is closest to one of training, the row of that one, and how far it is."""
    from ddoq_core.measure.samples import nearest

    store = latents_of(artifact.parents["encode"])
    real = store.read_class(name)
    found, shares = nearest(z.reshape(len(z), -1), real.reshape(len(real), -1).astype(np.float32))
    drawn = int(shares.argmin())
    return drawn, int(store.read_rows(name)[found[drawn]]), float(shares[drawn])
