"""Stage cluster: the best K points of each class, and how far they are from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.errors import UsageError
from storage.index import Index
from storage.lease import to_make
from storage.packs import Packs, neighbours
from storage.zarr_store import block_names
from tasks.inputs.cached import cached
from tasks.inputs.plan import CLASSES_PER_TASK, Work, batches_of
from tasks.inputs.stores import index_of, latent_content, latents_of, packed, prototypes_of
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import ClusterConfig

if TYPE_CHECKING:
    from ddoq_core import Quantization

VERSION = 2
IMAGES_TOGETHER = 16_384  # of classes that a GPU quantises at once: 2 GiB at d = 16,384 in half precision and float32
IMAGES_IN_MEMORY = 16_384  # of one class: 5 GiB at d = 16,384. It is the same for all machines, as it changes results

Share = Callable[[], AbstractContextManager[Any]]  # gives what stands for `map`


def plan(recipe: Recipe, method: str, seed: int, latents: Artifact) -> Work:
    """The prototypes of a method. Raises UsageError for a method that no class so large can have."""
    index = index_of(latents)
    counts = index.counts("train")
    config, largest = recipe.effective(method, counts.values()).cluster, max(counts.values())
    if largest > IMAGES_IN_MEMORY and config.is_whole:
        most = f"at most {IMAGES_IN_MEMORY} images, and one has {largest}"
        raise UsageError(f"cluster.method={config.method} takes classes of {most}: take exact")
    num_points = recipe.num_points(method)
    settings = {**identity(config, largest), "num_points": num_points, "seed": seed}
    artifact = Artifact(latents.root, "cluster", VERSION, settings, {"encode": latents}, label=config.method)
    packs = packed(artifact)
    costs = packs.totals({name: max(n, IMAGES_IN_MEMORY // CLASSES_PER_TASK) for name, n in counts.items()})
    return Work(
        artifact,
        cluster,
        (config, num_points, seed),
        units=len(packs.classes),
        batches=batches_of(packs, costs, IMAGES_IN_MEMORY),
        gpu=config.method == "exact" and largest <= IMAGES_IN_MEMORY,
        shares=largest > IMAGES_IN_MEMORY,
    )


def identity(config: ClusterConfig, largest: int) -> dict[str, Any]:
    """The settings that matter to the method, for classes of at most so many images."""
    order = {"order": "by seed"} if config.method in ("stream", "stream-d4m") else {}  # once it was the store's
    blocks = {"in_memory": IMAGES_IN_MEMORY} if largest > IMAGES_IN_MEMORY else {}  # once every class was
    return {**config.model_dump(exclude=set() if config.has_starts else {"num_starts"}), **order, **blocks}


def units(artifact: Artifact, index: Index, names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Packs, some or all, each with the hash of its latents, which are packed alike."""
    totals = packed(artifact).totals(index.counts("train"))
    return {pack: latent_content(artifact.parents["encode"], pack, totals[pack]) for pack in names or totals}


@task(task_run_name="cluster-{artifact.label}-{artifact.digest}-{batch}")
def cluster(
    artifact: Artifact,
    config: ClusterConfig,
    num_points: int,
    seed: int,
    names: tuple[str, ...],
    batch: str,
    share: Share = lambda: nullcontext(map),
) -> State | str:
    """Quantise the classes of each of these packs that the store does not hold yet. The blocks of a large class may be
    shared out."""
    index = index_of(artifact)
    wanted, packs = units(artifact, index, names), packed(artifact)
    if not artifact.missing(wanted) and artifact.is_done():
        return cached(artifact)
    totals = packs.totals(index.counts("train"))
    most = IMAGES_TOGETHER if quantises_together(config) else 0
    for _, missing in to_make(artifact, wanted, neighbours({pack: totals[pack] for pack in names}, most)):
        own = {pack: wanted[pack] for pack in missing}
        if sum(totals[pack] for pack in own) > IMAGES_IN_MEMORY:  # which are one class
            _cluster_blocks(artifact, config, num_points, seed, *own.popitem(), share)
        else:
            _cluster_group(artifact, config, num_points, seed, packs, own)
    artifact.finish_if_whole(len(totals), lambda: units(artifact, index))
    return str(artifact)


def quantises_together(config: ClusterConfig) -> bool:
    """Whether many classes are quantised at once, as is faster on a GPU; on a CPU one after the other is."""
    from ddoq_core.devices import best_device

    return config.method == "exact" and best_device().type == "cuda"


def _cluster_group(
    artifact: Artifact, config: ClusterConfig, num_points: int, seed: int, packs: Packs, wanted: dict[str, str]
) -> None:
    """Quantise the classes of these packs (name → hash of inputs) and commit each pack."""
    from ddoq_core.seeds import derive_seed

    latents, together = latents_of(artifact.parents["encode"]), Clock()
    names = [name for pack in wanted for name in packs.classes[pack]]
    with together("read"):
        classes = [latents.read_class(name) for name in names]  # each (n, C, H, W) float16
    with together("compute"):
        seeds = [derive_seed(seed, "cluster", name) for name in names]
        quantized = _quantized([z.reshape(len(z), -1) for z in classes], num_points, config, seeds)
    found, shape = dict(zip(names, quantized, strict=True)), classes[0].shape[1:]
    for pack, inputs in wanted.items():
        own = {name: found[name] for name in packs.classes[pack]}
        _write(artifact, pack, own, shape, inputs, together.share(len(wanted)), "in memory")


def _cluster_blocks(
    artifact: Artifact, config: ClusterConfig, num_points: int, seed: int, name: str, inputs: str, share: Share
) -> None:
    """Quantise a class that is never whole in memory, and commit it."""
    from ddoq_core.cluster.blocks import Blocks
    from ddoq_core.cluster.large import quantize_blocks
    from ddoq_core.seeds import derive_seed

    encode, clock = artifact.parents["encode"], Clock()
    own = derive_seed(seed, "cluster", name)
    num_blocks = len(block_names(name, index_of(artifact).counts("train")[name]))
    with clock("compute"), share() as each:
        blocks = Blocks(partial(_read_block, encode, name), num_blocks, each)
        q = quantize_blocks(blocks, num_points, method=config.method, seed=own, **_starts(config))
    _write(artifact, name, {name: q}, latents_of(encode).shape_of(name), inputs, clock, "in blocks")


def _read_block(encode: Artifact, name: str, block: int) -> NDArray[np.float16]:
    """One block of a class's latents, (b, d)."""
    z = latents_of(encode).read_block(name, block)
    return z.reshape(len(z), -1)


def _write(
    artifact: Artifact,
    pack: str,
    found: dict[str, Quantization],
    shape: tuple[int, ...],
    inputs: str,
    clock: Clock,
    held: str,
) -> None:
    """Write the prototypes of a pack by class, whose latents of this shape were held in memory or in blocks, and commit
    it."""
    arrays: dict[str, dict[str, NDArray[Any]]] = {
        name: {
            "centroids": q.centroids.reshape(-1, *shape),
            "counts": q.counts,
            "assignment": q.assignment,
            "medoids": q.medoids,
        }
        for name, q in found.items()
    }
    w2, inertia = [q.w2 for q in found.values()], [q.inertia for q in found.values()]
    with clock("write"):
        files = prototypes_of(artifact).write_pack(pack, arrays, inertia=inertia, w2=w2)
    num_images = sum(len(q.assignment) for q in found.values())
    facts = {"w2": w2, "images": num_images, "quantised": held, "classes": list(found)}
    artifact.commit(pack, files, inputs=inputs, clock=clock, facts=facts)


def _starts(config: ClusterConfig) -> dict[str, Any]:
    return {"num_starts": config.num_starts} if config.has_starts else {}


def _quantized(
    classes: list[NDArray[Any]], num_points: int, config: ClusterConfig, seeds: Sequence[int]
) -> list[Quantization]:
    """The prototypes of classes (n, d), each by its own seed."""
    from ddoq_core import quantize

    if quantises_together(config):
        from ddoq_core.cluster.batched import quantize_batch

        return quantize_batch(classes, num_points, seeds=seeds, **_starts(config))
    each = zip(classes, seeds, strict=True)
    return [quantize(z, num_points, method=config.method, seed=seed, **_starts(config)) for z, seed in each]
