"""Memory of the stage measure as its classes grow, a part of tests.bench.budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from flows.catalogue import load_recipe
from storage.artifact import Artifact
from storage.clock import Clock
from storage.packs import BLOCK_IMAGES
from storage.zarr_store import block_names
from tasks import measure, shard
from tasks.inputs.stores import images_of, indexed, latents_of, prototypes_of
from tasks.recipe.recipe import Recipe
from tests.bench.peak import peak_bytes

CLASSES, IPC, SIZE_PX, LATENT = ("a", "b"), 10, 32, (4, 64, 64)  # latents as of 512 px


def measure_growth(root: Path) -> float:
    """Stage measure on 8,192 latents a class (four blocks of the store), over the same on 2,048; both less the stage's
    libraries."""
    libraries = peak_bytes(_load)
    block, blocks = (_measured(root / str(n), n) for n in (BLOCK_IMAGES, 4 * BLOCK_IMAGES))
    return (blocks - libraries) / (block - libraries)


def _load() -> None:
    import ot
    import torch

    from ddoq_core.measure import gradient_gap
    from ddoq_core.train import networks

    assert all((ot, torch, gradient_gap, networks))


def _measured(root: Path, num_images: int) -> int:
    recipe = load_recipe("folder", IPC, [f"data.path={root / 'images'}", f"images.size_px={SIZE_PX}"])
    return peak_bytes(_measure, recipe, _write(recipe, root, num_images))


def _measure(recipe: Recipe, folder: Path) -> None:
    decode = Artifact.open(folder)
    listed, _ = indexed(decode.ancestor("shard"))
    work = measure.plan(recipe, "ddoq", 0, listed, decode)
    work.task.fn(work.artifact, *work.arguments)


def _write(recipe: Recipe, root: Path, num_images: int) -> Path:
    """Images, and latents, prototypes and pictures of noise for them. Returns the folder of the pictures."""
    rng = np.random.default_rng(0)
    for k in range(num_images * len(CLASSES)):
        place = root / "images" / ("train", "val")[k < len(CLASSES)] / CLASSES[k % len(CLASSES)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8)).save(place / f"{k}.jpg")
    work = shard.plan(recipe, root / "runs")
    work.task.fn(work.artifact, *work.arguments)
    listed, index = indexed(work.artifact)
    latents = Artifact(listed.root, "encode", 1, {}, {"shard": listed})
    points = Artifact(listed.root, "cluster", 1, {"num_points": IPC}, {"encode": latents})
    decode = Artifact(listed.root, "decode", 1, {"method": "diffusion"}, {"cluster": points})
    for name in CLASSES:
        rows = index.rows("train", name)
        latents_of(latents).prepare_pack(name, {name: rows}, LATENT)
        units = block_names(name, len(rows))
        for k, unit in enumerate(units):
            z = rng.standard_normal((len(rows[k * BLOCK_IMAGES :][:BLOCK_IMAGES]), *LATENT), np.float32)
            files = latents_of(latents).write_block(name, k, z.astype(np.float16))
            latents.commit(unit, files, inputs="", clock=Clock())
        arrays = {"centroids": rng.standard_normal((IPC, *LATENT), np.float32), "counts": np.full(IPC, 7)}
        points.commit(name, prototypes_of(points).write_class(name, arrays), inputs="", clock=Clock())
        pictures = rng.integers(0, 256, (IPC, SIZE_PX, SIZE_PX, 3), np.uint8)
        files = images_of(decode).write_class(name, {"images": pictures, "centroid": np.arange(IPC)})
        decode.commit(name, files, inputs="", clock=Clock())
    latents.finish(latents.marks())
    points.finish(CLASSES)
    decode.finish(CLASSES)
    return decode.path
