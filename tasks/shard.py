"""Stage shard: list the images of a source, look at each once, and give the data set its identity."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import INDEX, Index
from storage.lease import leased_whole
from storage.sources import Source, check_refused, examine, stat_hash, unpack
from tasks.inputs.cached import cached
from tasks.inputs.data import (
    classes_of,
    shard_artifact,
    source_for,
    split_listing,
    unit_of,
)
from tasks.inputs.plan import Work
from tasks.inputs.stores import indexed
from tasks.pages.findings import facts_of, remarks
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import DataConfig

REFUSED_IMAGES = "refused.parquet"

log = logging.getLogger(__name__)


def plan(recipe: Recipe, root: Path) -> Work:
    """What is written of the recipe's source."""
    return Work(shard_artifact(root, recipe.data), shard, (recipe.data,))


@task(task_run_name="shard-{artifact.label}")
def shard(artifact: Artifact, data: DataConfig) -> State | str:
    """Write the index of a source, unless the source is as it was when the index was written."""
    with leased_whole(artifact):
        return _listed(artifact, data)


def _listed(artifact: Artifact, data: DataConfig) -> State | str:
    clock = Clock()
    source = source_for(artifact, data)
    with clock("read"):
        source.fetch()
        unpacked = _unpack(artifact, source)
        inputs = source.fingerprint()
    folder = artifact.path / INDEX
    if artifact.is_done() and artifact.holds(INDEX, inputs) and artifact.reads_back(INDEX):
        total = len(indexed(artifact)[1].table) + len(refused := pq.read_table(folder / REFUSED_IMAGES))
        check_refused(refused, total, data.max_refused)
        return cached(artifact)
    _scan(artifact, source)
    with clock("read"):
        listing = split_listing(source, data)
        images, hashes, refused = examine(source, listing, data.max_refused, artifact.report_progress)
    index = Index.build(images, hashes, classes_of(listing))
    with clock("write"):
        folder.mkdir(parents=True, exist_ok=True)
        index.write(folder)
        pq.write_table(refused, folder / REFUSED_IMAGES)
    facts = facts_of(index, len(refused))
    artifact.commit(INDEX, [folder], inputs=inputs, clock=clock, facts=facts)
    artifact.finish([INDEX, *unpacked], facts=facts)
    for line in remarks(facts):
        log.warning(line)
    return str(artifact)


def _unpack(artifact: Artifact, source: Source) -> list[str]:
    """Decompress the archives that are not unpacked yet. Returns the units that all of them are."""
    archives = source.compressed()
    for k, (archive, plain) in enumerate(archives.items()):
        if not artifact.holds(unit_of(plain), stat_hash([archive])):
            artifact.report_progress(k, len(archives), f"unpacking {archive.name}")
            unpack(archive, plain)
            artifact.commit(unit_of(plain), [plain], inputs=stat_hash([archive]), clock=Clock())
    return [unit_of(plain) for plain in archives.values()]


def _scan(artifact: Artifact, source: Source) -> None:
    """Read the archives at addresses that are not read yet, or others by now. Their scans are no part of what is made:
    they are there for a run that goes on, or finds one archive changed."""
    scans = source.scans()
    for k, scan in enumerate(scans):
        if not artifact.holds(unit_of(scan.file), inputs := stat_hash([scan.archive])):
            clock, tell = Clock(), partial(_tell, artifact, scan.archive.name, k, len(scans))
            tell(0)
            with clock("read"):
                source.scan(scan, tell)
            artifact.commit(unit_of(scan.file), [scan.file], inputs=inputs, clock=clock)


def _tell(artifact: Artifact, name: str, done: int, total: int, num_images: int) -> None:
    artifact.report_progress(done, total, f"reading {name}: {num_images:,} images")
