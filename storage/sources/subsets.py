"""Subsets of ImageNet-1K that papers call by a name, as lists of WordNet ids."""

from __future__ import annotations

from pathlib import Path

from storage.sources.listing import Listing, SourceError

LISTS = Path(__file__).with_name("subset_lists")


def subset_classes(name: str) -> tuple[str, ...]:
    """The WordNet ids of a subset, in the order of its source."""
    lines = (LISTS / f"{name}.txt").read_text().splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def take_subset(listing: Listing, name: str) -> Listing:
    """The images of a subset's classes. Raises SourceError for classes that the source does not have."""
    wanted = subset_classes(name)
    present = set(listing.images["class"].unique().to_pylist())
    absent = [c for c in wanted if c not in present]
    if absent:
        raise SourceError(
            f"the source lacks {len(absent)} of the {len(wanted)} classes of data.subset={name}: {', '.join(absent)}"
        )
    return listing.of_classes(wanted)
