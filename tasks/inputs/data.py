"""The data set of a recipe before anything is run: what it lists, how it is split, and whether it can serve.

Loads no Prefect and no torch, so that what cannot be is refused at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.artifact import Artifact, Damaged, NotDone
from storage.index import INDEX, Index
from storage.sources import Listing, Source, SourceError, changed_images, class_order, stat_hash, take_subset
from tasks.inputs.sources import open_data
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import DataConfig

VERSION = 2  # of the stage shard

_checked: dict[Path, Source] = {}  # sources that an early check in this process has listed, for the stage to take over


def shard_artifact(root: Path, data: DataConfig) -> Artifact:
    """The artifact of a source; its identity is known once it is done (see tasks.inputs.stores.indexed)."""
    unset = {"tune_fraction"} if not data.tune_fraction else set()  # in no digest of before there was this
    return Artifact(root, "shard", VERSION, data.model_dump(exclude={"max_refused", *unset}), label=data.source)


def source_for(artifact: Artifact, data: DataConfig) -> Source:
    """The source that an early check has listed, or a new one."""
    return _checked.pop(artifact.path, None) or open_data(data, artifact.path / "unpacked")


def unit_of(made: Path) -> str:
    """The unit that an unpacked archive is, or a scan."""
    return f"{made.parent.name}/{made.stem}"


def split_listing(source: Source, data: DataConfig) -> Listing:
    """What a source lists, of the subset's classes, every image in "train" or "val": as the source says, else a
    stratified split by the recipe's seed; then a share of those of "train" in "tune". Raises SourceError."""
    listing = take_subset(source.listing, data.subset) if data.subset else source.listing
    splits = set(listing.images["split"].unique().to_pylist())
    if splits == {""}:
        listing = _with_splits(listing, _held_out(listing, data))
    elif splits != {"train", "val"}:
        raise SourceError(
            f"the images of {data.path} are of {' and '.join(sorted(split or 'no split' for split in splits))} alone: "
            "put all of them below train/ and val/ (a flat val/ takes data.val_path and data.val_labels), or none"
        )
    return _with_splits(listing, _kept(listing, data)) if data.tune_fraction else listing


def _held_out(listing: Listing, data: DataConfig) -> NDArray[np.object_]:
    """The split (n,) of each image of a source that has none."""
    from sklearn.model_selection import train_test_split

    labels = np.asarray(listing.images["class"].to_pylist())
    rows = np.arange(len(labels))
    try:
        train, _ = train_test_split(rows, test_size=data.val_fraction, random_state=data.split_seed, stratify=labels)
    except ValueError as error:
        raise SourceError(f"data.val_fraction={data.val_fraction} cannot split every class: {error}") from error
    return np.where(np.isin(rows, train), "train", "val").astype(object)


def _kept(listing: Listing, data: DataConfig) -> NDArray[np.object_]:
    """The split (n,) of each image where of every class a share of those of training is kept, rounded down: none of a
    class of few images."""
    split = np.asarray(listing.images["split"].to_pylist(), object)
    rows = np.random.default_rng(data.split_seed).permutation(np.flatnonzero(split == "train"))
    labels = np.asarray(listing.images["class"].dictionary_encode().combine_chunks().indices)[rows]
    counts = np.bincount(labels)
    for own in np.split(rows[labels.argsort(kind="stable")], counts.cumsum()[:-1]):
        split[own[: int(data.tune_fraction * len(own))]] = "tune"
    return split


def _with_splits(listing: Listing, split: NDArray[np.object_]) -> Listing:
    at = listing.images.schema.get_field_index("split")
    return Listing(listing.images.set_column(at, "split", pa.array(split, pa.string())), listing.refused)


def check_source(recipe: Recipe, root: Path) -> tuple[str, ...]:
    """The source's classes. Raises SourceError, before any long stage, for one that cannot serve the recipe.

    A source that must be downloaded, unpacked or read whole first is left to the stage: no classes.
    """
    artifact = shard_artifact(root.absolute(), recipe.data)
    source = open_data(recipe.data, artifact.path / "unpacked")
    archives = source.compressed().items()
    ready = source.is_fetched() and all(artifact.holds(unit_of(plain), stat_hash([file])) for file, plain in archives)
    if ready and (not source.scans() or artifact.holds(INDEX, source.fingerprint())):
        counts = _training_counts(artifact, source, recipe.data)
        check_counts(recipe, counts)
        _checked[artifact.path] = source
        return tuple(counts)
    return ()


def _training_counts(artifact: Artifact, source: Source, data: DataConfig) -> dict[str, int]:
    """Training images per class: of the index, if it and the source are as they were then, else as listed."""
    if artifact.holds(INDEX, source.fingerprint()) and artifact.reads_back(INDEX):
        return Index.read(artifact.path / INDEX).counts("train")
    listing = split_listing(source, data)
    names = listing.images["class"].filter(pc.equal(listing.images["split"], "train"))
    counted = {row["values"]: row["counts"] for row in names.value_counts().to_pylist()}
    return {name: counted.get(name, 0) for name in classes_of(listing)}


def changed_sources(artifact: Artifact, tell: Callable[[int, int], None]) -> Iterator[str]:
    """A line for each image of a finished shard artifact that is gone or has other bytes than when it was indexed.

    The source is opened anew and read whole; `tell` gets (done, total).
    """
    data = DataConfig.model_validate(artifact.config)
    try:
        artifact.check(INDEX)
        table = Index.read(artifact.path / INDEX).table
        for image in changed_images(open_data(data, artifact.path / "unpacked"), table, tell):
            yield f"changed: {artifact}, image {image}"
    except (NotDone, Damaged, SourceError) as error:
        yield f"not compared: {artifact}: {error}"


def classes_of(listing: Listing) -> tuple[str, ...]:
    """The names of a listing's classes in the order of their labels."""
    return class_order(listing.images["class"].unique().to_pylist())


def check_counts(recipe: Recipe, training: dict[str, int]) -> None:
    """Raise SourceError for classes that have fewer images than a method has prototypes."""
    smallest = min(training, key=lambda name: training[name])
    method = max(recipe.methods, key=recipe.num_points)
    there, tiles = training[smallest], recipe.settings_of(method).decode.mosaic ** 2
    if there < recipe.num_points(method):
        of, lower = f" of {tiles} tiles for the method {method!r}", ", or decode.mosaic lower"
        raise SourceError(
            f"ipc={recipe.ipc}{of if tiles > 1 else ''} is more than class {smallest!r} has training images ({there}): "
            f"set ipc to at most {there // tiles}{lower if tiles > 1 else ''}"
        )
