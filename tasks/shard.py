"""Stage shard: list the images of a source, split them, and give the data set its identity."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from prefect import State, task
from sklearn.model_selection import train_test_split

from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import Index
from storage.sources import Item, Source, SourceError, content_hash, fingerprint, open_source
from tasks.config import DataConfig, Recipe
from tasks.outcome import cached

VERSION = 1
UNIT = "index"


def shard_artifact(root: Path, data: DataConfig) -> Artifact:
    """The artifact of a source; its identity is known once it is done (see `indexed`)."""
    return Artifact(root, "shard", VERSION, data.model_dump(), label=data.source)


def indexed(artifact: Artifact) -> tuple[Artifact, Index]:
    """A finished shard artifact under its identity, the index's content, and the index."""
    index = _index(artifact.path / UNIT, artifact.content())
    return artifact.known_as(index.identity), index


@lru_cache(maxsize=2)
def _index(folder: Path, content: str) -> Index:
    return Index.read(folder)


@task(task_run_name="shard-{artifact.label}")
def shard(artifact: Artifact, data: DataConfig) -> State | str:
    """Write the index of a source, unless the source is as it was when the index was written."""
    clock = Clock()
    with clock("read"):
        source = open_source(data.source, data.path)
        items = source.items()
    inputs = fingerprint(items)
    if artifact.is_done() and artifact.holds(UNIT, inputs):
        return cached(artifact)
    with clock("read"), ThreadPoolExecutor(8) as pool:
        hashes = list(pool.map(lambda item: content_hash(source, item.path), items))
    index = Index.build(items, split_of(items, data), hashes)
    folder = artifact.path / UNIT
    with clock("write"):
        folder.mkdir(parents=True, exist_ok=True)
        index.write(folder)
    facts = {"images": len(items), "classes": len(index.classes)}
    artifact.commit(UNIT, [folder], inputs=inputs, clock=clock, facts=facts)
    artifact.finish([UNIT], facts=facts)
    return str(artifact)


def split_of(items: list[Item], data: DataConfig) -> list[str]:
    """The split of each image: the source's own, else a stratified one by the recipe's seed."""
    if items[0].split:
        if "val" not in {item.split for item in items}:
            raise SourceError(f"{data.path} has train/ but no val/: add it, or give class folders without train/")
        return [item.split for item in items]
    labels = [item.class_name for item in items]
    train, _ = train_test_split(
        np.arange(len(items)), test_size=data.val_fraction, random_state=data.split_seed, stratify=labels
    )
    chosen = set(train.tolist())
    return ["train" if i in chosen else "val" for i in range(len(items))]


def check_source(recipe: Recipe) -> None:
    """Raise SourceError, before any long stage, for a source that cannot serve the recipe."""
    source: Source = open_source(recipe.data.source, recipe.data.path)
    items = source.items()
    try:
        splits = split_of(items, recipe.data)
    except ValueError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"data.val_fraction={recipe.data.val_fraction} cannot split every class: {error}") from error
    check_counts(
        recipe.ipc,
        _count(item.class_name for item, split in zip(items, splits, strict=True) if split == "train"),
        _count(item.class_name for item in items),
    )


def check_counts(ipc: int, training: dict[str, int], listed: dict[str, int]) -> None:
    """Raise SourceError for classes that cannot give `ipc` images."""
    smallest = min(listed, key=lambda name: training.get(name, 0))
    if training.get(smallest, 0) < ipc:
        raise SourceError(
            f"ipc={ipc} is more than class {smallest!r} has training images ({training.get(smallest, 0)}): "
            f"set ipc to at most {training.get(smallest, 0)}"
        )


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
