"""Stage measure: how far a weighted distilled set is from the data, in the latents and in what training sees of it.

These are the two sides of Theorem 1 (arXiv 2501.07681): W2 bounds the error of the training gradient.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import State, task

from ddoq_core.train.architectures import initialisation
from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import canonical_json, sha256_of
from storage.index import Index
from tasks.inputs.cached import made_once
from tasks.inputs.distilled import Distilled
from tasks.inputs.plan import Work
from tasks.inputs.real import cut, read_batches
from tasks.inputs.stores import distilled_set, images_of, indexed, latents_of, prototypes_of, some_classes, some_rows
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import ImageConfig, Weighting

VERSION = 3
FOLDER = "measure"
MOST_REAL = 500  # images of each, drawn at random, whose gradient stands for the data
GRADIENT_SEED = 0  # of the fixed network


def plan(recipe: Recipe, method: str, seed: int, shard: Artifact, decode: Artifact) -> Work:
    """The measures of a method's pictures, whose seed is a student's."""
    images, architecture = recipe.images.for_training, recipe.train.architectures[0]
    weights = recipe.effective(method, indexed(shard)[1].counts("train").values()).weights
    network = {"architecture": architecture, **initialisation(architecture)}
    settings = {"images": images.model_dump(), **network, "weights": weights}
    parents = {"shard": shard, "decode": decode}
    artifact = Artifact(shard.root, "measure", VERSION, settings, parents, label=f"{method}-{seed}")
    return Work(artifact, measure, (images, architecture, weights), gpu=True)


@task(task_run_name="measure-{artifact.label}-{artifact.digest}")
@made_once
def measure(artifact: Artifact, images: ImageConfig, architecture: str, weights: Weighting) -> State | str:
    """W2, n_eff and the gradient gap of the pictures under a rule of weights, as facts of the record.

    w2        of the weighted centroids (or the real images that stand for them) to their class, in latent space; None
              for pictures without prototypes
    n_eff     effective sample size of the weights of a class
    gradient  ‖∇L(real) − ∇L_w(distilled)‖ / ‖∇L(real)‖ at the student's network as it is before training
    All are of the classes of `some_classes`: the first two means over them, the third of them together, each of which
    counts equally, as it does among the distilled.
    """
    from ddoq_core import effective_sample_size

    clock, decoded = Clock(), artifact.parents["decode"]
    with clock("read"):
        shard, index = indexed(artifact.parents["shard"])
        names = some_classes(index)
        distilled = distilled_set(decoded, weights, names)
        own_weights = [distilled.weights[distilled.labels == label] for label in np.unique(distilled.labels)]
    with clock("compute"):
        facts = {
            "w2": fmean(_w2(decoded, name, weights) for name in names) if "cluster" in decoded.parents else None,
            "n_eff": fmean(effective_sample_size(w) for w in own_weights),
            "gradient": _gradient_gap(shard, index, images, architecture, distilled),
        }
    with artifact.writing(FOLDER, clock, facts) as folder:
        (folder / "measure.json").write_bytes(canonical_json(facts))
    return str(artifact)


def _w2(decoded: Artifact, name: str, weights: Weighting) -> float:
    from ddoq_core import class_weights
    from ddoq_core.measure.wasserstein import squared_distances, w2_of

    prototypes = decoded.parents["cluster"]
    latents, found = latents_of(prototypes.parents["encode"]), prototypes_of(prototypes).read_class(name)
    match decoded.config["method"]:
        case "medoid":
            points = latents.read_some(name, found["medoids"])
        case "member":
            points = latents.read_some(name, images_of(decoded).read_array(name, "member").ravel())
        case _:
            points = found["centroids"]
    flat = _flat(points)  # (K, d)
    squares = [squared_distances(_flat(block), flat) for block in latents.read_blocks(name)]
    return w2_of(np.concatenate(squares), class_weights(found["counts"], weights))


def _flat(z: NDArray[Any]) -> NDArray[Any]:
    return z.reshape(len(z), -1)


def _gradient_gap(shard: Artifact, index: Index, images: ImageConfig, architecture: str, distilled: Distilled) -> float:
    import torch

    from ddoq_core.measure.gradient_gap import gradient_gap

    model, real = _real_gradient(shard, index, images, architecture)
    x, y = _tensors(distilled.images, distilled.labels)
    return gradient_gap(model, real, x, y, torch.from_numpy(distilled.weights))


_gradients: dict[str, Any] = {}  # of the last network and data of this process


def _real_gradient(shard: Artifact, index: Index, images: ImageConfig, architecture: str) -> tuple[Any, Any]:
    """An untrained student, and its gradient on real images of some classes."""
    import torch

    from ddoq_core.measure.gradient_gap import BATCH_IMAGES, mean_gradient
    from ddoq_core.train.networks import ClassifierSpec, build_classifier

    key = sha256_of([shard.content(), images.model_dump(), architecture])
    if key not in _gradients:
        by_class = some_rows(index, "train", MOST_REAL)
        sizes = np.array([len(part) for part in by_class])
        rows, equally = (cut(a, BATCH_IMAGES) for a in (np.concatenate(by_class), np.repeat(1 / sizes, sizes)))
        read = zip(read_batches(shard, index, rows, images), rows, equally, strict=True)
        batches = ((*_tensors(x, index.labels(part)), torch.from_numpy(w)) for x, part, w in read)
        model = build_classifier(ClassifierSpec(architecture, len(index.classes), images.size_px), seed=GRADIENT_SEED)
        gradient = mean_gradient(model, batches)
        _gradients.clear()
        _gradients[key] = model, gradient
    return _gradients[key]


def _tensors(pictures: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[Any, Any]:
    """Pictures (n, 3, S, S) uint8 and labels (n,)."""
    import torch

    return torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(labels)
