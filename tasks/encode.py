"""Stage encode: real images in, latents out, a block of a class at a time."""

from __future__ import annotations

from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import sha256_of
from storage.index import Index
from storage.zarr_store import BLOCK_IMAGES, LatentStore, block_names
from tasks.config import ImageConfig
from tasks.models import load_autoencoder
from tasks.outcome import cached
from tasks.real import read_images
from tasks.shard import indexed

VERSION = 1
STORE = "latents.zarr"


def latents_of(artifact: Artifact) -> LatentStore:
    """The store of an encode artifact."""
    return LatentStore(artifact.path / STORE)


def units(artifact: Artifact, index: Index, class_names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Units of some classes (or all), each with the hash of what it is made from."""
    model = artifact.parents["autoencoder"].content()
    found = {}
    for name in class_names or index.classes:
        rows = index.rows("train", name)
        for block, unit in enumerate(block_names(name, len(rows))):
            hashes = index.hashes(rows[block * BLOCK_IMAGES : (block + 1) * BLOCK_IMAGES])
            found[unit] = sha256_of([model, hashes])
    return found


def num_units(index: Index) -> int:
    """How many units the latents of a data set have."""
    return sum(len(block_names(name, count)) for name, count in index.counts("train").items())


def class_content(artifact: Artifact, class_name: str, num_images: int) -> str:
    """Hash of a class's latents."""
    marks = [artifact.mark(unit) for unit in block_names(class_name, num_images)]
    return sha256_of([mark.content if mark else None for mark in marks])


@task(task_run_name="encode-{artifact.digest}-{batch}")
def encode(artifact: Artifact, images: ImageConfig, class_names: tuple[str, ...], batch: str) -> State | str:
    """Encode the blocks of these classes that the store does not hold yet."""
    shard, index = indexed(artifact.parents["shard"])
    wanted = units(artifact, index, class_names)
    missing = artifact.missing(wanted)
    if not missing and artifact.is_done():
        return cached(artifact)
    from ddoq_core import autoencoder as core

    store = latents_of(artifact)
    for unit in missing:
        clock = Clock()
        name, block = unit.rsplit("/", 1)
        class_rows = index.rows("train", name)
        rows = class_rows[int(block) * BLOCK_IMAGES : (int(block) + 1) * BLOCK_IMAGES]
        with clock("read"):
            model = load_autoencoder(artifact.parents["autoencoder"])
            real = read_images(shard, index, rows, images)
        with clock("compute"):
            z = core.encode(model, real)  # (n, C, H, W) float16
        with clock("write"):
            store.prepare_class(name, class_rows, z.shape[1:])
            files = store.write_block(name, int(block), z)
        artifact.commit(unit, files, inputs=wanted[unit], clock=clock, facts={"images": len(rows)})
    artifact.finish_if_whole(num_units(index), lambda: units(artifact, index))
    return str(artifact)
