"""Benchmark of memory: stage cluster on a class that it quantises in blocks, and on one of four times the size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flows.catalogue import load_recipe
from storage.artifact import Artifact
from storage.clock import Clock
from storage.packs import BLOCK_IMAGES
from storage.zarr_store import block_names
from tasks import cluster
from tasks.inputs.stores import latents_of
from tests.bench.peak import peak_bytes
from tests.tasks.conftest import shard_of

NAME, SHAPE = "tench", (8, 8, 8)


def cluster_growth(root: Path) -> float:
    """Peak memory of quantising 81,920 images over that of 20,480, both less that of 64, each in a fresh process.

    At d = 512 these would be 160 and 40 MiB in float32, of which in memory several copies are made.
    """
    least, once, four_times = (_peak(root / str(n), n) for n in (64, 20_480, 81_920))
    return (four_times - least) / (once - least)


def _peak(root: Path, num_images: int) -> int:
    latents = Artifact(root, "encode", 1, {}, {"shard": shard_of(root, [NAME], num_images)})
    store, rng = latents_of(latents), np.random.default_rng(0)
    store.prepare_pack(NAME, {NAME: np.arange(num_images)}, SHAPE)
    units = block_names(NAME, num_images)
    for block, unit in enumerate(units):
        own = min(BLOCK_IMAGES, num_images - block * BLOCK_IMAGES)
        z = rng.standard_normal((own, *SHAPE), np.float32).astype(np.float16)
        z[::2] += 4  # two clusters, so that Lloyd ends soon
        latents.commit(unit, store.write_block(NAME, block, z), inputs="", clock=Clock())
    latents.finish(units)
    return peak_bytes(_quantise, latents)


def _quantise(latents: Artifact) -> None:
    recipe = load_recipe("digits").with_changes({"ipc": 2, "cluster": {"method": "exact", "num_starts": 1}})
    work = cluster.plan(recipe, "ddoq", 0, latents)
    for batch in work.batches:
        work.task.fn(work.artifact, *work.arguments, *batch)
