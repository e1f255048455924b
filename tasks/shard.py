"""Stage shard: list the images of a source, look at each once, and give the data set its identity."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import State, task
from sklearn.model_selection import train_test_split

from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import Index
from storage.sources import (
    Listing,
    Source,
    SourceError,
    check_refused,
    class_order,
    examine,
    stat_hash,
    take_subset,
    unpack,
)
from tasks.inputs.cached import cached
from tasks.inputs.plan import Work
from tasks.inputs.sources import open_data
from tasks.inputs.stores import INDEX, indexed
from tasks.pages.findings import facts_of, remarks
from tasks.recipe.settings import DataConfig, Recipe

VERSION = 2
REFUSED_IMAGES = "refused.parquet"

log = logging.getLogger(__name__)
_checked: dict[Path, Source] = {}  # sources that an early check in this process has listed, for the stage to take over


def shard_artifact(root: Path, data: DataConfig) -> Artifact:
    """The artifact of a source; its identity is known once it is done (see tasks.inputs.stores.indexed)."""
    return Artifact(root, "shard", VERSION, data.model_dump(exclude={"max_refused"}), label=data.source)


def plan(recipe: Recipe, root: Path) -> Work:
    """What is written of the recipe's source."""
    return Work(shard_artifact(root, recipe.data), shard, (recipe.data,))


@task(task_run_name="shard-{artifact.label}")
def shard(artifact: Artifact, data: DataConfig) -> State | str:
    """Write the index of a source, unless the source is as it was when the index was written."""
    clock = Clock()
    source = _checked.pop(artifact.path, None) or open_data(data, artifact.path / "unpacked")
    with clock("read"):
        source.fetch()
        unpacked = _unpack(artifact, source)
        inputs = source.fingerprint()
    folder = artifact.path / INDEX
    if artifact.is_done() and artifact.holds(INDEX, inputs):
        total = len(indexed(artifact)[1].table) + len(refused := pq.read_table(folder / REFUSED_IMAGES))
        check_refused(refused, total, data.max_refused)
        return cached(artifact)
    with clock("read"):
        listing = split_listing(source, data)
        images, hashes, refused = examine(source, listing, data.max_refused, artifact.report_progress)
    index = Index.build(images, hashes, _classes(listing))
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
        if not artifact.holds(_unit_of(plain), stat_hash([archive])):
            artifact.report_progress(k, len(archives), f"unpacking {archive.name}")
            unpack(archive, plain)
            artifact.commit(_unit_of(plain), [plain], inputs=stat_hash([archive]), clock=Clock())
    return [_unit_of(plain) for plain in archives.values()]


def _unit_of(plain: Path) -> str:
    return f"unpacked/{plain.stem}"


def split_listing(source: Source, data: DataConfig) -> Listing:
    """What a source lists, of the subset's classes, every image in "train" or "val": as the source says, else a
    stratified split by the recipe's seed."""
    listing = take_subset(source.listing, data.subset) if data.subset else source.listing
    splits = set(listing.images["split"].unique().to_pylist())
    if splits == {"train", "val"}:
        return listing
    if splits != {""}:
        raise SourceError(
            f"the images of {data.path} are of {' and '.join(sorted(split or 'no split' for split in splits))} alone: "
            "put all of them below train/ and val/ (a flat val/ takes data.val_path and data.val_labels), or none"
        )
    labels = np.asarray(listing.images["class"].to_pylist())
    rows = np.arange(len(labels))
    try:
        train, _ = train_test_split(rows, test_size=data.val_fraction, random_state=data.split_seed, stratify=labels)
    except ValueError as error:
        raise SourceError(f"data.val_fraction={data.val_fraction} cannot split every class: {error}") from error
    split = pc.if_else(pa.array(np.isin(rows, train)), "train", "val")
    column = listing.images.schema.get_field_index("split")
    return Listing(listing.images.set_column(column, "split", split), listing.refused)


def check_source(recipe: Recipe, root: Path) -> tuple[str, ...]:
    """The source's classes. Raises SourceError, before any long stage, for one that cannot serve the recipe.

    A source that must be downloaded or unpacked first is left to the stage: no classes.
    """
    artifact = shard_artifact(root.absolute(), recipe.data)
    source = open_data(recipe.data, artifact.path / "unpacked")
    archives = source.compressed().items()
    if source.is_fetched() and all(artifact.holds(_unit_of(plain), stat_hash([file])) for file, plain in archives):
        counts = _training_counts(artifact, source, recipe.data)
        check_counts(recipe.ipc, counts)
        _checked[artifact.path] = source
        return tuple(counts)
    return ()


def _training_counts(artifact: Artifact, source: Source, data: DataConfig) -> dict[str, int]:
    """Training images per class: of the index, if the source is as it was then, else as listed."""
    if artifact.holds(INDEX, source.fingerprint()):
        return Index.read(artifact.path / INDEX).counts("train")
    listing = split_listing(source, data)
    names = listing.images["class"].filter(pc.equal(listing.images["split"], "train"))
    counted = {row["values"]: row["counts"] for row in names.value_counts().to_pylist()}
    return {name: counted.get(name, 0) for name in _classes(listing)}


def _classes(listing: Listing) -> tuple[str, ...]:
    return class_order(listing.images["class"].unique().to_pylist())


def check_counts(ipc: int, training: dict[str, int]) -> None:
    """Raise SourceError for classes that cannot give `ipc` images."""
    smallest = min(training, key=lambda name: training[name])
    if training[smallest] < ipc:
        raise SourceError(
            f"ipc={ipc} is more than class {smallest!r} has training images ({training[smallest]}): "
            f"set ipc to at most {training[smallest]}"
        )
