"""Stage view: the real images of a split as classifiers see them, prepared once for all who look at them."""

from __future__ import annotations

import numpy as np
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from tasks.inputs.cached import Progress, made_once
from tasks.inputs.plan import Work
from tasks.inputs.real import BATCH_IMAGES, cut, read_batches
from tasks.inputs.stores import PIXELS, VIEW, indexed
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import ImageConfig

VERSION = 1


def plan(recipe: Recipe, shard: Artifact, split: str, center_crop: float | None = None) -> Work:
    """A split's images at the size of training; center_crop as in ddoq_core.images.preprocess."""
    images = recipe.images.for_training
    settings = {"split": split, "images": images.model_dump(), "center_crop": center_crop}
    artifact = Artifact(shard.root, "view", VERSION, settings, {"shard": shard}, label=split)
    return Work(artifact, view, (split, images, center_crop))


@task(task_run_name="view-{artifact.label}-{artifact.digest}")
@made_once
def view(artifact: Artifact, split: str, images: ImageConfig, center_crop: float | None) -> State | str:
    """Write the images (n, S, S, 3) uint8 to one file of numpy's, which can be mapped; few are in memory at a time."""
    clock, progress = Clock(), Progress(artifact)
    with clock("read"):
        shard, index = indexed(artifact.parents["shard"])
        rows = index.rows(split)
        batches = cut(rows, BATCH_IMAGES)
        pictures = read_batches(shard, index, batches, images, center_crop)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), images.size_px, images.size_px, 3)}
    with artifact.writing(VIEW, clock, {"images": len(rows)}) as folder, (folder / PIXELS).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for k, batch in enumerate(clock.each("read", pictures)):
            file.write(batch.data)
            progress.report(k + 1, len(batches))
    return str(artifact)
