"""Stage decode: pictures for every prototype."""

from __future__ import annotations

from typing import Any

from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import sha256_of
from storage.index import Index
from storage.zarr_store import ClassStore
from tasks.inputs.cached import cached
from tasks.pictures import Decoded, Medoids, Pictures
from tasks.recipe.settings import DecodeConfig, ImageConfig
from tasks.shard import indexed

VERSION = 2
STORE = "images.zarr"


def images_of(artifact: Artifact) -> ClassStore:
    """The store of a decode artifact."""
    return ClassStore(artifact.path / STORE)


def identity(config: DecodeConfig, seed: int) -> dict[str, Any]:
    """The settings that matter to the method."""
    if config.method != "diffusion":
        return {"method": config.method}
    return {**config.model_dump(), "seed": seed}


def units(artifact: Artifact, index: Index, class_names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Classes, each with the hash of its prototypes and of the models."""
    models = {k: parent.content() for k, parent in artifact.parents.items() if k in ("autoencoder", "prior")}
    prototypes = artifact.parents["cluster"]
    marks = {name: prototypes.mark(name) for name in class_names or index.classes}
    return {name: sha256_of([models, mark.content if mark else None]) for name, mark in marks.items()}


@task(task_run_name="decode-{artifact.label}-{artifact.digest}-{batch}")
def decode(
    artifact: Artifact, config: DecodeConfig, images: ImageConfig, seed: int, class_names: tuple[str, ...], batch: str
) -> State | str:
    """Decode each of these classes that the store does not hold yet."""
    _, index = indexed(artifact.parents["cluster"].parents["encode"].parents["shard"])
    wanted = units(artifact, index, class_names)
    missing = artifact.missing(wanted)
    if not missing and artifact.is_done():
        return cached(artifact)
    if missing:
        medoid = config.method == "medoid"
        pictures = Medoids(artifact, images, index) if medoid else Decoded(artifact, config, images, index, seed)
        for group in pictures.groups(class_names):
            _write_group(artifact, pictures, group, {name: wanted[name] for name in group if name in missing})
    artifact.finish_if_whole(len(index.classes), lambda: units(artifact, index))
    return str(artifact)


def _write_group(artifact: Artifact, pictures: Pictures, group: Any, missing: dict[str, str]) -> None:
    """Make a group's pictures if some of its classes are missing, and commit those (name → hash of inputs)."""
    if not missing:
        return
    together = Clock()
    found = pictures.of(group, together)
    for name, inputs in missing.items():
        clock = together.share(len(missing))
        with clock("write"):
            files = images_of(artifact).write_class(name, found[name], **pictures.attributes)
        artifact.commit(name, files, inputs=inputs, clock=clock, facts={"images": len(found[name]["images"])})
