"""Stage cluster: the best K points of each class, and how far they are from it."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import Index
from storage.zarr_store import ClassStore
from tasks.encode import class_content, latents_of
from tasks.inputs.cached import cached
from tasks.recipe.settings import ClusterConfig
from tasks.shard import indexed

VERSION = 1
STORE = "prototypes.zarr"


def prototypes_of(artifact: Artifact) -> ClassStore:
    """The store of a cluster artifact."""
    return ClassStore(artifact.path / STORE)


def units(artifact: Artifact, index: Index, class_names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Classes, each with the hash of its latents."""
    counts = index.counts("train")
    return {c: class_content(artifact.parents["encode"], c, counts[c]) for c in class_names or index.classes}


@task(task_run_name="cluster-{artifact.label}-{artifact.digest}-{batch}")
def cluster(
    artifact: Artifact, config: ClusterConfig, num_points: int, seed: int, class_names: tuple[str, ...], batch: str
) -> State | str:
    """Quantise each of these classes that the store does not hold yet."""
    latents = artifact.parents["encode"]
    _, index = indexed(latents.parents["shard"])
    wanted = units(artifact, index, class_names)
    missing = artifact.missing(wanted)
    if not missing and artifact.is_done():
        return cached(artifact)
    from ddoq_core import quantize
    from ddoq_core.cluster.checks import TAKEN_BY
    from ddoq_core.seeds import derive_seed

    for name in missing:
        clock = Clock()
        with clock("read"):
            z = latents_of(latents).read_class(name)  # (n, C, H, W)
        flat = z.reshape(len(z), -1)
        with clock("compute"):
            found = quantize(
                flat,
                num_points,
                method=config.method,
                num_starts=config.num_starts if config.method in TAKEN_BY["num_starts"] else None,
                seed=derive_seed(seed, "cluster", name),
            )
        with clock("write"):
            arrays: dict[str, NDArray[Any]] = {
                "centroids": found.centroids.reshape(num_points, *z.shape[1:]),
                "counts": found.counts,
                "assignment": found.assignment,
                "medoids": found.medoids,
            }
            files = prototypes_of(artifact).write_class(name, arrays, inertia=found.inertia, w2=found.w2)
        artifact.commit(name, files, inputs=wanted[name], clock=clock, facts={"w2": found.w2, "images": len(z)})
    artifact.finish_if_whole(len(index.classes), lambda: units(artifact, index))
    return str(artifact)
