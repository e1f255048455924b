"""Stage encode: real images in, latents out, a block of a pack of classes at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import sha256_of
from storage.index import Index
from storage.lease import to_make
from storage.packs import Packs
from storage.zarr_store import block_names
from tasks.inputs.cached import Progress, cached
from tasks.inputs.models import load_encoder
from tasks.inputs.plan import Work, batches_of_images
from tasks.inputs.real import cut, read_batches
from tasks.inputs.stores import indexed, latent_blocks, latents_of, packed
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import EncodeConfig, ImageConfig

VERSION = 3


def plan(recipe: Recipe, shard: Artifact, model: Artifact, *, mirrored: bool = False) -> Work:
    """The latents of a recipe's training images, or of their mirror images."""
    config, images = recipe.encode, recipe.images.for_encoding
    parents = {"shard": shard, "autoencoder": model}
    settings = {**identity(config, images), **({"mirrored": True} if mirrored else {})}
    artifact = Artifact(shard.root, "encode", VERSION, settings, parents)
    _, index = indexed(shard)
    packs = packed(artifact)
    batches, num = batches_of_images(packs, index.counts("train")), num_units(packs, index)
    return Work(artifact, encode, (config, images, mirrored), units=num, batches=batches, gpu=True)


def identity(config: EncodeConfig, images: ImageConfig) -> dict[str, Any]:
    """The settings that matter."""
    return {
        "images": {**images.model_dump(exclude_none=True), **images.filters},
        **config.model_dump(exclude={"jpeg", *(["seed"] if config.posterior == "mean" else [])}),
        **({"jpeg": config.jpeg} if config.jpeg != "full" else {}),
    }


def units(artifact: Artifact, index: Index, names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Units of some packs (or all), each with the hash of what it is made from."""
    model, packs = artifact.parents["autoencoder"].content(), packed(artifact)
    blocks = (b for pack in names or packs.classes for b in latent_blocks(index, pack, packs.classes[pack]).items())
    return {unit: sha256_of([model, index.hashes(rows)]) for unit, rows in blocks}


def num_units(packs: Packs, index: Index) -> int:
    """How many units the latents of a data set have."""
    return sum(len(block_names(pack, num)) for pack, num in packs.totals(index.counts("train")).items())


@dataclass(frozen=True)
class Block:
    """A unit, and the rows of the index (n,) that it is made from."""

    unit: str
    rows: NDArray[np.int64]

    def batches(self, size: int) -> list[NDArray[np.int64]]:
        """The rows in batches, which depend on the block alone, so that a rerun computes the same bits."""
        return cut(self.rows, size)


@task(task_run_name="encode-{artifact.digest}-{batch}")
def encode(
    artifact: Artifact,
    config: EncodeConfig,
    images: ImageConfig,
    mirrored: bool,
    names: tuple[str, ...],
    batch: str,
) -> State | str:
    """Encode the blocks of these packs that the store does not hold yet."""
    shard, index = indexed(artifact.parents["shard"])
    wanted, packs = units(artifact, index, names), packed(artifact)
    if not artifact.missing(wanted) and artifact.is_done():
        return cached(artifact)
    rows = {unit: part for pack in names for unit, part in latent_blocks(index, pack, packs.classes[pack]).items()}
    for _, missing in to_make(artifact, wanted, [list(wanted)]):
        writing: Future[None] | None = None
        blocks = [Block(unit, rows[unit]) for unit in missing]
        with ThreadPoolExecutor(1) as writer:  # writes a block while the next one is computed
            for block, z, clock in _encoded(artifact, config, images, mirrored, shard, index, blocks):
                if writing:
                    writing.result()
                writing = writer.submit(_write, artifact, packs, index, block, z, wanted[block.unit], clock)
        if writing:
            writing.result()
    artifact.finish_if_whole(num_units(packs, index), lambda: units(artifact, index))
    return str(artifact)


def _encoded(
    artifact: Artifact,
    config: EncodeConfig,
    images: ImageConfig,
    mirrored: bool,
    shard: Artifact,
    index: Index,
    blocks: list[Block],
) -> Iterator[tuple[Block, NDArray[np.float16], Clock]]:
    """Latents (n, C, H, W) of each block; its images are decoded while the one before is computed."""
    from ddoq_core.encode.autoencoder import encode_batches

    model = load_encoder(artifact.parents["autoencoder"])
    size = model.batch_size(images.size_px)
    rows = (rows for block in blocks for rows in block.batches(size))
    pictures = read_batches(shard, index, rows, images, reduced=config.jpeg == "reduced")
    if mirrored:
        pictures = (np.ascontiguousarray(batch[:, :, ::-1]) for batch in pictures)
    for block in blocks:
        clock, parts, progress, start = Clock(), [], Progress(artifact, block.unit), time.monotonic()
        sample = (config.seed, "posterior", block.unit) if config.posterior == "sample" else None
        batches = clock.each("read", islice(pictures, len(block.batches(size))))
        with clock("compute"):
            for z in encode_batches(model, batches, sample=sample):
                parts.append(z.astype(np.float16))
                done = sum(map(len, parts))
                progress.report(done, len(block.rows), f"{done / (time.monotonic() - start):.0f} images/s")
        yield block, np.concatenate(parts), clock


def _write(
    artifact: Artifact, packs: Packs, index: Index, block: Block, z: NDArray[np.float16], inputs: str, clock: Clock
) -> None:
    pack, number = block.unit.rsplit("/", 1)
    class_names, store = packs.classes[pack], latents_of(artifact)
    with clock("write"):
        store.prepare_pack(pack, {name: index.rows("train", name) for name in class_names}, z.shape[1:])
        files = store.write_block(pack, int(number), z)
    facts = {"images": len(z), "classes": class_names}
    artifact.commit(block.unit, files, inputs=inputs, clock=clock, facts=facts)
