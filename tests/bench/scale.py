"""Part 4 of the quantiser's benchmark: a store of latents the size of ImageNet-1K through the cluster stage itself.

The artifacts before the stage are written as their stages would write them, with random low-rank latents; the stage
is then run by its flow, with a Prefect server and Dask on every core. Everything is deleted afterwards.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console

from flows.catalogue import load_recipe
from flows.server import prefect_server
from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import Index
from storage.packs import BLOCK_IMAGES
from storage.sources.listing import ListingBuilder, Location
from storage.zarr_store import LatentStore, block_names

IMAGES, SHAPE = 1300, (4, 32, 32)
RANK, NOISE = 64, 0.3


def through_the_stage(root: Path, num_classes: int, num_points: int, console: Console) -> dict[str, float]:
    """Seconds, seconds per class, share of the workers' time outside k-means, and GiB of the largest worker."""
    root = root / "scale"
    shutil.rmtree(root, ignore_errors=True)
    try:
        with prefect_server(root) as server:
            from flows import local

            recipe = load_recipe("imagenet", num_points, ["seeds=[0]", 'methods={"ddoq":{}}'])
            latents = _write_ancestors(root, recipe, num_classes)
            _write_latents(latents, num_classes, console)
            server.wait()
            start = time.perf_counter()
            found = local.execute("cluster", recipe, root, cluster=None, workers=2)
            seconds = time.perf_counter() - start
        [row] = [row for row in found["stages"] if row["stage"] == "cluster"]
        assert row["units"] == num_classes
        marks = [json.loads(path.read_text()) for path in root.glob("cluster/*/marks/*.json")]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    computing = sum(mark["seconds"]["compute"] for mark in marks)
    result = {
        "scale_seconds": seconds,
        "scale_seconds_per_class": seconds / num_classes,
        "scale_share_outside_kmeans": 1 - computing / (2 * seconds),
        "scale_worker_gib": max(mark["peak_bytes"] for mark in marks) / 2**30,
    }
    console.print(f"{num_classes} classes of {IMAGES} × {SHAPE}, K = {num_points}, 2 workers: {result}")
    return result


def _write_ancestors(root: Path, recipe: Any, num_classes: int) -> Artifact:
    """A finished shard and autoencoder artifact, and the encode artifact that is to be filled."""
    from storage.index import INDEX
    from tasks import autoencoder, encode
    from tasks.inputs.data import shard_artifact

    names = [f"n{c:08d}" for c in range(num_classes)]
    listing = ListingBuilder()
    for name in names:
        for i in range(IMAGES):
            listing.add(name, "train", Location(f"train/{name}/{i}.JPEG", 0, 0))
    images = listing.finish().images
    index = Index.build(images, pa.chunked_array([[f"{k:032x}" for k in range(len(images))]]), names)
    source = shard_artifact(root.absolute(), recipe.data)
    folder = source.path / INDEX
    folder.mkdir(parents=True)
    index.write(folder)
    source.commit(INDEX, [folder], inputs="", clock=Clock())
    source.finish([INDEX])
    source = source.known_as(index.identity)
    model = autoencoder.plan(recipe, source).artifact
    with model.writing("model", Clock()) as folder:
        (folder / "weights.json").write_text("{}")
    return encode.plan(recipe, source, model).artifact


def _write_latents(artifact: Artifact, num_classes: int, console: Console) -> None:
    store = LatentStore(artifact.path / "latents.zarr")
    rng = np.random.default_rng(0)
    dimensions = int(np.prod(SHAPE))
    scale = (np.arange(1, RANK + 1) ** -0.5).astype(np.float32)
    basis = rng.standard_normal((RANK, dimensions), np.float32)
    noise = NOISE * rng.standard_normal((IMAGES, dimensions), np.float32)
    units = []
    with console.status("writing latents"):
        for c in range(num_classes):
            z = (rng.standard_normal((IMAGES, RANK), np.float32) * scale) @ basis + np.roll(noise, c, axis=1)
            units += _write_class(artifact, store, c, z.reshape(IMAGES, *SHAPE).astype(np.float16))
    artifact.finish(units)


def _write_class(artifact: Artifact, store: LatentStore, c: int, z: NDArray[np.float16]) -> list[str]:
    name = f"n{c:08d}"
    store.prepare_pack(name, {name: np.arange(c * IMAGES, (c + 1) * IMAGES)}, SHAPE)
    units = block_names(name, IMAGES)
    for block, unit in enumerate(units):
        own = z[block * BLOCK_IMAGES : (block + 1) * BLOCK_IMAGES]
        artifact.commit(unit, store.write_block(name, block, own), inputs="", clock=Clock())
    return units
