"""A finished distilled set of two classes, made by hand as the stages before it would leave it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ddoq_core.train.networks import ClassifierSpec, build_classifier, save_classifier
from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import Index
from storage.sources.listing import ListingBuilder, Location
from tasks.inputs.given import MODEL
from tasks.inputs.stores import INDEX, images_of, prototypes_of

CLASSES, IPC, SIZE_PX = ("n01440764", "n02102040"), 5, 8


@pytest.fixture
def parents(tmp_path: Path) -> dict[str, Artifact]:
    """What a student's labels are made from: shard, decode and teacher."""
    shard = _shard(tmp_path)
    encode = Artifact(tmp_path, "encode", 1, {}, {"shard": shard})
    cluster = Artifact(tmp_path, "cluster", 1, {"method": "exact", "num_points": IPC}, {"encode": encode})
    decode = Artifact(tmp_path, "decode", 1, {"method": "diffusion", "strength": 0.7}, {"cluster": cluster})
    with encode.writing("latents", Clock()) as folder:
        (folder / "none").write_text("")
    rng = np.random.default_rng(0)
    for k, name in enumerate(CLASSES):
        counts = np.arange(1, IPC + 1) * (k + 1)
        files = prototypes_of(cluster).write_class(name, {"counts": counts})
        cluster.commit(name, files, inputs="", clock=Clock(), facts={"w2": 1.5 + k})
        pictures = rng.integers(0, 256, (IPC, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
        files = images_of(decode).write_class(name, {"images": pictures, "centroid": np.arange(IPC)})
        decode.commit(name, files, inputs="", clock=Clock())
    cluster.finish(CLASSES)
    decode.finish(CLASSES)
    teacher = Artifact(tmp_path, "teacher", 1, {}, {"shard": shard})
    spec = ClassifierSpec("convnet-1-8", len(CLASSES), SIZE_PX)
    with teacher.writing(MODEL, Clock(), {"top1": 0.9}) as folder:
        save_classifier(build_classifier(spec, seed=1), spec, folder)
    return {"shard": shard, "decode": decode, "teacher": teacher}


def _shard(root: Path) -> Artifact:
    builder = ListingBuilder()
    for name in CLASSES:
        for i in range(IPC):
            builder.add(name, "train", Location(f"{name}/{i}.png", 0, 0))
    hashes = [f"{k:032x}" for k in range(len(CLASSES) * IPC)]
    index = Index.build(builder.finish().images, pa.chunked_array([hashes]), CLASSES)
    shard = Artifact(root, "shard", 1, {"source": "folder", "path": "/home/somebody/photos"})
    with shard.writing(INDEX, Clock()) as folder:
        index.write(folder)
    return shard.known_as(index.identity)
