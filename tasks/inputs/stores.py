"""What several stages read of each other's artifacts: the index, the stores, the distilled set that they make up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddoq_core.seeds import derive_seed
from storage.artifact import Artifact
from storage.files import sha256_of
from storage.index import INDEX, Index
from storage.memory import join
from storage.packs import BLOCK_IMAGES, Packs, packs_of
from storage.zarr_store import ClassStore, LatentStore, block_names
from tasks.inputs import meanings
from tasks.inputs.distilled import Distilled
from tasks.recipe.settings import Weighting

LATENTS, PROTOTYPES, IMAGES, SAMPLES = (f"{name}.zarr" for name in ("latents", "prototypes", "images", "samples"))
VIEW, PIXELS = "view", "images.npy"  # the folder of a view artifact, and the file in it
REPORT = "report"  # the stage, its artifact among a run's, and the folder in it

MEASURES = ("w2", "n_eff", "gradient")  # facts of a measure artifact's record
MOST_CLASSES = 20  # measured, sampled and shown


def indexed(shard: Artifact) -> tuple[Artifact, Index]:
    """A finished shard artifact under its identity, the index's content, and the index. Raises NotDone or Damaged."""
    content = shard.content()
    shard.check(INDEX)
    index = _index(shard.path / INDEX, content)
    return shard.known_as(index.identity), index


@lru_cache(maxsize=2)
def _index(folder: Path, content: str) -> Index:
    return Index.read(folder)


def index_of(artifact: Artifact) -> Index:
    """The index of the data set that an artifact was made from, or is."""
    return indexed(artifact if artifact.stage == "shard" else artifact.ancestor("shard"))[1]


def some_classes(index: Index) -> tuple[str, ...]:
    """The classes that stand for all where they are many: MOST_CLASSES drawn at random, as the first are often alike;
    for every method and seed the same, in label order."""
    drawn = np.random.default_rng(derive_seed(0, "classes")).permutation(len(index.classes))[:MOST_CLASSES]
    return tuple(index.classes[label] for label in sorted(drawn))


def some_rows(index: Index, split: str, most: int) -> list[NDArray[np.int64]]:
    """Rows of the index of each of these classes, at most so many of a split, drawn at random."""
    rng = np.random.default_rng(0)
    return [rng.permutation(index.rows(split, name))[:most] for name in some_classes(index)]


def packed(artifact: Artifact) -> Packs:
    """The packs of an artifact of latents, prototypes or pictures."""
    return packs_of(artifact, index_of(artifact).counts("train"))


def latents_of(encode: Artifact) -> LatentStore:
    """The store of an encode artifact."""
    return LatentStore(encode.path / LATENTS, encode.check, packed(encode))


def prototypes_of(cluster: Artifact) -> ClassStore:
    """The store of a cluster artifact."""
    return ClassStore(cluster.path / PROTOTYPES, cluster.check, meanings.PROTOTYPES, packed(cluster))


def images_of(decode: Artifact) -> ClassStore:
    """The store of a decode artifact."""
    return ClassStore(decode.path / IMAGES, decode.check, meanings.IMAGES, packed(decode))


def samples_of(sample: Artifact) -> ClassStore:
    """The store of a sample artifact, which is made as a whole."""
    return ClassStore(sample.path / SAMPLES, lambda _: sample.check(SAMPLES))


def latent_blocks(index: Index, pack: str, class_names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Units of the latents of a pack of these classes, "<pack>/<block>", each with the rows of the index (n,) that it
    is made from."""
    rows = np.concatenate([index.rows("train", name) for name in class_names])
    units = block_names(pack, len(rows))
    return {unit: rows[k * BLOCK_IMAGES : (k + 1) * BLOCK_IMAGES] for k, unit in enumerate(units)}


def latent_content(encode: Artifact, pack: str, num_images: int) -> str:
    """Hash of a pack's finished latents, or of what there is of them."""
    marks = [encode.mark(unit) for unit in block_names(pack, num_images)]
    return sha256_of([mark.content if mark else None for mark in marks])


def distilled_set(decode: Artifact, weights: Weighting, class_names: Sequence[str] | None = None) -> Distilled:
    """The pictures of all classes, or of some, weighted by this rule. Raises ValueError for an unknown rule.

    Of mosaics they are the tiles, brought to the size of a picture, each with its own weight. They are in memory once,
    or in a file of their own where they do not fit.
    """
    from ddoq_core.images import to_tiles

    classes, store = index_of(decode).classes, images_of(decode)
    labels = range(len(classes)) if class_names is None else [classes.index(name) for name in class_names]
    names = [classes[label] for label in labels]
    centroids = [store.read_array(name, "centroid").ravel() for name in names]
    sizes = [len(of_class) for of_class in centroids]
    shape, mosaic = (sum(sizes), *store.shape_of(names[0], "images")[1:]), decode.config.get("mosaic", 1)
    return Distilled(
        images=join((to_tiles(store.read_array(name, "images"), mosaic) for name in names), shape, decode.root),
        labels=np.repeat(labels, sizes),
        centroids=np.concatenate(centroids),
        weights=np.concatenate([_weights(decode, n, weights)[k] for n, k in zip(names, centroids, strict=True)]),
        classes=classes,
    )


def _weights(decode: Artifact, name: str, rule: Weighting) -> NDArray[np.float64]:
    """Of the prototypes of a class (K,); of pictures without prototypes those that a given set has, or 1."""
    from ddoq_core import class_weights

    if "cluster" in decode.parents:
        return class_weights(prototypes_of(decode.parents["cluster"]).read_array(name, "counts"), rule)
    store = images_of(decode)
    if rule == "given" and "weight" in store.keys_of(name):
        return store.read_array(name, "weight")
    return np.ones(store.shape_of(name, "images")[0])


def own_labels(decode: Artifact) -> NDArray[np.float32] | None:
    """The soft labels of a given set as logits (N, C), in the order of `distilled_set`; None where it has none."""
    store, classes = images_of(decode), index_of(decode).classes
    if "logits" not in store.keys_of(classes[0]):
        return None
    return np.concatenate([store.read_array(name, "logits") for name in classes])


def view_of(view: Artifact) -> NDArray[np.uint8]:
    """The images (n, S, S, 3) of a view artifact, in the order of its split's rows of the index, mapped from their file
    and not to be written to."""
    view.check(VIEW)
    return np.load(view.path / VIEW / PIXELS, mmap_mode="c")  # private to this process: torch takes no other


def rows_of_report(report: Artifact, name: str = "results") -> list[dict[str, Any]]:
    """The rows of a report's results.json (method, architecture, top-1 of each seed, their mean and standard deviation,
    W2), or of its differences.json. Raises Damaged."""
    report.check(REPORT)
    return list(json.loads((report.path / REPORT / f"{name}.json").read_text()))
