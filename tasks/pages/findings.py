"""What the stage shard found out about a data set, as facts for its record and as sentences for people."""

from __future__ import annotations

from typing import Any

from storage.index import Index
from storage.sources import WORDNET_ID

NUM_NAMED = 5


def facts_of(index: Index, num_refused: int) -> dict[str, Any]:
    """What the record of a shard artifact says of its images."""
    val, train, repeats = index.duplicates()
    pairs = zip(index.locations(val[:NUM_NAMED]), index.locations(train[:NUM_NAMED]), strict=True)
    return {
        "images": len(index.table),
        "refused": num_refused,
        "classes": len(index.classes),
        "duplicates_across_splits": len(val),
        "first_duplicates": [f"{a.name} = {b.name}" for a, b in pairs],
        "duplicates_in_training": repeats,
        "unknown_class_names": unknown_class_names(index.classes),
    }


def unknown_class_names(names: tuple[str, ...]) -> list[str]:
    """Class names that are no WordNet ids of ImageNet-1K, where most of them are; else none."""
    if 2 * sum(bool(WORDNET_ID.fullmatch(name)) for name in names) <= len(names):
        return []
    from ddoq_core.imagenet import imagenet_index

    unknown = [name for name in names if imagenet_index(name) is None]
    return unknown if 2 * len(unknown) < len(names) else []


def remarks(facts: dict[str, Any]) -> list[str]:
    """What a reader of the results should know of a data set, a sentence each."""
    lines = []
    if count := facts["refused"]:
        lines.append(f"Images left out because they cannot be shown: {count} (refused.parquet lists them).")
    if count := facts["duplicates_across_splits"]:
        first = "; ".join(facts["first_duplicates"])
        lines.append(f"Validation images that are in training too, which flatters every accuracy: {count} ({first}).")
    if count := facts["duplicates_in_training"]:
        lines.append(f"Training images that repeat another one: {count}.")
    if names := facts["unknown_class_names"]:
        lines.append(
            f"Classes that are not of ImageNet-1K, unlike most: {len(names)} ({', '.join(names[:NUM_NAMED])})."
        )
    return lines
