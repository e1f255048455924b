"""Stage cluster: the best K points of each class, and how far they are from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import Index
from tasks.inputs.cached import cached
from tasks.inputs.plan import Work, batches_of, batches_of_classes
from tasks.inputs.stores import index_of, latent_content, latents_of, prototypes_of
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import ClusterConfig

if TYPE_CHECKING:
    from ddoq_core import Quantization

VERSION = 1
IMAGES_TOGETHER = 16_384  # of classes that a GPU quantises at once: 2 GiB at d = 16,384 in half precision and float32


def plan(recipe: Recipe, method: str, seed: int, latents: Artifact) -> Work:
    """The prototypes of a method."""
    index = index_of(latents)
    config, class_names = recipe.effective(method, index.counts("train").values()).cluster, index.classes
    settings = {**identity(config), "num_points": recipe.ipc, "seed": seed}
    artifact = Artifact(latents.root, "cluster", VERSION, settings, {"encode": latents}, label=config.method)
    batches = batches_of_classes(class_names)
    gpu = config.method == "exact"
    return Work(artifact, cluster, (config, recipe.ipc, seed), units=len(class_names), batches=batches, gpu=gpu)


def identity(config: ClusterConfig) -> dict[str, Any]:
    """The settings that matter to the method."""
    order = {"order": "by seed"} if config.method in ("stream", "stream-d4m") else {}  # once it was the store's
    return {**config.model_dump(exclude=set() if config.has_starts else {"num_starts"}), **order}


def units(artifact: Artifact, index: Index, class_names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Classes, each with the hash of its latents."""
    counts = index.counts("train")
    return {c: latent_content(artifact.parents["encode"], c, counts[c]) for c in class_names or index.classes}


@task(task_run_name="cluster-{artifact.label}-{artifact.digest}-{batch}")
def cluster(
    artifact: Artifact, config: ClusterConfig, num_points: int, seed: int, class_names: tuple[str, ...], batch: str
) -> State | str:
    """Quantise each of these classes that the store does not hold yet."""
    index = index_of(artifact)
    wanted = units(artifact, index, class_names)
    missing = artifact.missing(wanted)
    if not missing and artifact.is_done():
        return cached(artifact)
    counts = index.counts("train")
    most = IMAGES_TOGETHER if quantises_together(config) else 0
    for group in batches_of({name: counts[name] for name in missing}, most):
        _cluster_group(artifact, config, num_points, seed, {name: wanted[name] for name in group.class_names})
    artifact.finish_if_whole(len(index.classes), lambda: units(artifact, index))
    return str(artifact)


def quantises_together(config: ClusterConfig) -> bool:
    """Whether many classes are quantised at once, as is faster on a GPU; on a CPU one after the other is."""
    from ddoq_core.devices import best_device

    return config.method == "exact" and best_device().type == "cuda"


def _cluster_group(
    artifact: Artifact, config: ClusterConfig, num_points: int, seed: int, wanted: dict[str, str]
) -> None:
    """Quantise these classes (name → hash of inputs) and commit each."""
    from ddoq_core.seeds import derive_seed

    latents, together = latents_of(artifact.parents["encode"]), Clock()
    with together("read"):
        classes = [latents.read_class(name) for name in wanted]  # each (n, C, H, W) float16
    with together("compute"):
        seeds = [derive_seed(seed, "cluster", name) for name in wanted]
        found = _quantized([z.reshape(len(z), -1) for z in classes], num_points, config, seeds)
    for (name, inputs), z, q in zip(wanted.items(), classes, found, strict=True):
        clock = together.share(len(wanted))
        arrays: dict[str, NDArray[Any]] = {
            "centroids": q.centroids.reshape(num_points, *z.shape[1:]),
            "counts": q.counts,
            "assignment": q.assignment,
            "medoids": q.medoids,
        }
        with clock("write"):
            files = prototypes_of(artifact).write_class(name, arrays, inertia=q.inertia, w2=q.w2)
        artifact.commit(name, files, inputs=inputs, clock=clock, facts={"w2": q.w2, "images": len(z)})


def _quantized(
    classes: list[NDArray[Any]], num_points: int, config: ClusterConfig, seeds: Sequence[int]
) -> list[Quantization]:
    """The prototypes of classes (n, d), each by its own seed."""
    from ddoq_core import quantize

    starts: dict[str, Any] = {"num_starts": config.num_starts} if config.has_starts else {}
    if quantises_together(config):
        from ddoq_core.cluster.batched import quantize_batch

        return quantize_batch(classes, num_points, seeds=seeds, **starts)
    each = zip(classes, seeds, strict=True)
    return [quantize(z, num_points, method=config.method, seed=seed, **starts) for z, seed in each]
