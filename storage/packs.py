"""Packs: which neighbouring classes of a store share a group, its files and a mark.

They follow from the names and sizes of the classes alone, so that every process and every run finds the same ones. A
pack is called by its class, or by its first and last one. A large class is a pack by itself. Loads no zarr.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from storage.artifact import Artifact

BLOCK_IMAGES = 2048  # images in one shard of latents; a pack of several classes has no more
PACK_PICTURES = 64  # of several classes: what a decoder that is killed has made for nothing
PACK_CLASSES = 32
PACKS_AT_LEAST = 16  # so that few classes keep all workers busy


class Packs:
    """The classes of each pack, in order: `classes`. Of a class that none has, its pack is the class alone."""

    def __init__(self, classes: Mapping[str, tuple[str, ...]]) -> None:
        self.classes = dict(classes)
        self._places = {name: (pack, k) for pack, own in self.classes.items() for k, name in enumerate(own)}

    def place(self, class_name: str) -> tuple[str, int]:
        """The pack of a class, and its position in it."""
        return self._places.get(class_name, (class_name, 0))

    def totals(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """What the classes of each pack are together."""
        return {pack: sum(sizes[name] for name in own) for pack, own in self.classes.items()}


ALONE = Packs({})


def packs_of(artifact: Artifact, counts: Mapping[str, int]) -> Packs:
    """The packs of an artifact of latents, prototypes or pictures, from the training images of each class."""
    if artifact.stage != "decode":
        return packed(tuple(counts.items()), BLOCK_IMAGES)
    num_points = artifact.parents.get("cluster", artifact).config["num_points"]
    return packed(tuple((name, num_points) for name in counts), PACK_PICTURES)


@lru_cache(maxsize=8)
def packed(sizes: tuple[tuple[str, int], ...], most: int) -> Packs:
    """Neighbouring classes (name, size) in packs that are together at most so large, or a single class."""
    names = {name for name, _ in sizes}
    most = min(most, sum(size for _, size in sizes) // PACKS_AT_LEAST)
    costs = {name: max(size, 1, -(-most // PACK_CLASSES)) for name, size in sizes}
    return Packs({_called(part, names): part for part in neighbours(costs, most)})


def _called(part: tuple[str, ...], names: set[str]) -> str:
    if len(part) == 1:
        return part[0]
    pack = f"{part[0]}..{part[-1]}"
    while pack in names:  # a class that is called so
        pack += "."
    return pack


def neighbours(costs: Mapping[str, int], most: int) -> list[tuple[str, ...]]:
    """Neighbours in parts that cost at most this much together, or are one alone."""
    parts: list[list[str]] = [[]]
    cost = 0
    for name, more in costs.items():
        if parts[-1] and cost + more > most:
            parts.append([])
            cost = 0
        parts[-1].append(name)
        cost += more
    return [tuple(part) for part in parts if part]
