"""Finished stages to work on: of a tiny recipe through their own tasks, and of two classes made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ddoq_core.train.networks import ClassifierSpec, build_classifier, save_classifier
from flows.catalogue import load_recipe
from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import INDEX, Index
from storage.sources.listing import ListingBuilder, Location
from tasks import autoencoder, cluster, encode, prior, shard, teacher, view
from tasks.inputs.given import MODEL
from tasks.inputs.plan import Work
from tasks.inputs.stores import images_of, indexed, packed, prototypes_of
from tasks.recipe.recipe import Recipe

CLASSES, IPC, SIZE_PX = ("n01440764", "n02102040"), 5, 8


@dataclass(frozen=True)
class Pipeline:
    """A tiny recipe on scikit-learn's digits and its finished stages up to the prototypes. Do not change."""

    recipe: Recipe
    index: Index
    shard: Artifact
    autoencoder: Artifact
    encode: Artifact
    prior: Artifact
    teacher: Artifact
    cluster: Artifact

    @property
    def models(self) -> dict[str, Artifact]:
        return {"autoencoder": self.autoencoder, "prior": self.prior, "teacher": self.teacher}


def complete(work: Work) -> Artifact:
    """Do a stage's work here, batch after batch."""
    for batch in work.batches or [()]:
        work.task.fn(work.artifact, *work.arguments, *batch)
    assert work.artifact.is_done()
    return work.artifact


TINY = {
    "ipc": 3,
    "images.size_px": 8,
    "autoencoder": {"train": {"channels": [8, 8], "num_steps": 30}, "precision": "float32"},
    "prior.train": {"num_layers": 1, "head_dim": 8, "num_steps": 30},
    "teacher.num_epochs": 3,
    "cluster.num_starts": 1,
    "decode": {"strength": 0.5, "guidance_scale": 1.5, "num_steps": 8},
}


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The stages through their own plans and tasks, made once."""
    recipe = load_recipe("digits").with_changes(TINY)
    listed, index = indexed(complete(shard.plan(recipe, tmp_path_factory.mktemp("runs"))))
    model = complete(autoencoder.plan(recipe, listed))
    latents = complete(encode.plan(recipe, listed, model))
    diffusion = complete(prior.plan(recipe, listed, {"encode": latents}))
    judge = complete(teacher.plan(recipe, listed, complete(view.plan(recipe, listed, "train"))))
    points = complete(cluster.plan(recipe, "ddoq", 0, latents))
    return Pipeline(recipe, index, listed, model, latents, diffusion, judge, points)


@pytest.fixture
def parents(tmp_path: Path) -> dict[str, Artifact]:
    """What a student's labels are made from: shard, decode and teacher."""
    listed = shard_of(tmp_path, CLASSES)
    decode = decode_of(listed, CLASSES, IPC, SIZE_PX)
    judge = Artifact(tmp_path, "teacher", 1, {}, {"shard": listed})
    spec = ClassifierSpec("convnet-1-8", len(CLASSES), SIZE_PX)
    with judge.writing(MODEL, Clock(), {"top1": 0.9}) as folder:
        save_classifier(build_classifier(spec, seed=1), spec, folder)
    return {"shard": listed, "decode": decode, "teacher": judge}


def decode_of(listed: Artifact, classes: Sequence[str], ipc: int, size_px: int, mosaic: int = 1) -> Artifact:
    """Pictures of noise for these classes, and artifacts for what they would be made from."""
    num_points = ipc * mosaic**2
    centroid, config = np.arange(num_points), {"method": "diffusion", "strength": 0.7}
    if mosaic > 1:
        centroid, config = centroid.reshape(ipc, -1), {**config, "mosaic": mosaic}
    latents = Artifact(listed.root, "encode", 1, {}, {"shard": listed})
    points = Artifact(listed.root, "cluster", 1, {"method": "exact", "num_points": num_points}, {"encode": latents})
    decode = Artifact(listed.root, "decode", 1, config, {"cluster": points})
    with latents.writing("latents", Clock()) as folder:
        (folder / "none").write_text("")
    rng = np.random.default_rng(0)
    counts = {name: np.arange(1, num_points + 1) * (k + 1) for k, name in enumerate(classes)}
    for pack, names in packed(points).classes.items():
        files = prototypes_of(points).write_pack(pack, {name: {"counts": counts[name]} for name in names})
        w2 = [1.5 + classes.index(name) for name in names]
        points.commit(pack, files, inputs="", clock=Clock(), facts={"w2": w2})
    for pack, names in packed(decode).classes.items():
        pictures = rng.integers(0, 256, (len(names), ipc, size_px, size_px, 3), dtype=np.uint8)
        own = zip(names, pictures, strict=True)
        files = images_of(decode).write_pack(pack, {name: {"images": x, "centroid": centroid} for name, x in own})
        decode.commit(pack, files, inputs="", clock=Clock())
    points.finish(packed(points).classes)
    decode.finish(packed(decode).classes)
    return decode


def shard_of(root: Path, classes: Sequence[str], images: int = IPC) -> Artifact:
    """An index of images that lie nowhere."""
    builder = ListingBuilder()
    for name in classes:
        for i in range(images):
            builder.add(name, "train", Location(f"{name}/{i}.png", 0, 0))
    hashes = [f"{k:032x}" for k in range(len(classes) * images)]
    index = Index.build(builder.finish().images, pa.chunked_array([hashes]), classes)
    artifact = Artifact(root, "shard", 1, {"source": "folder", "path": "/home/somebody/photos"})
    with artifact.writing(INDEX, Clock()) as folder:
        index.write(folder)
    return artifact.known_as(index.identity)
