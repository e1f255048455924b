"""What classes are called: ImageNet's folders are named by WordNet id, priors know them by name or by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from timm.data import ImageNetInfo


def describe(class_name: str) -> str:
    """The class line of a WordNet id of ImageNet-1K, "tench, Tinca tinca"; any other name stays as it is."""
    imagenet = _imagenet()
    return str(imagenet.label_name_to_description(class_name)) if class_name in _index() else class_name


def prompt_name(class_name: str) -> str:
    """What a text-to-image prior is told of a class: its class line, of the two cranes and two maillots with what they
    are, "crane: large long-necked wading bird ...". D4M's prompts of these are the same, or nearly."""
    line = describe(class_name)
    if class_name not in _index() or line.split(", ")[0] not in _shared():
        return line
    return str(_imagenet().label_name_to_description(class_name, detailed=True))


def imagenet_index(class_name: str) -> int | None:
    """The number 0 to 999 of a WordNet id in ImageNet-1K's order, None for any other name."""
    return _index().get(class_name)


def is_imagenet(class_names: Sequence[str]) -> bool:
    """Whether these are ImageNet-1K's classes, by their WordNet ids and in its order."""
    return list(class_names) == _imagenet().label_names()


@lru_cache(maxsize=1)
def _imagenet() -> ImageNetInfo:
    return ImageNetInfo()


@lru_cache(maxsize=1)
def _shared() -> set[str]:
    """First names that more than one class has."""
    names = Counter(describe(name).split(", ")[0] for name in _index())
    return {name for name, count in names.items() if count > 1}


@lru_cache(maxsize=1)
def _index() -> dict[str, int]:
    return {name: k for k, name in enumerate(_imagenet().label_names())}


def dit_ids(class_names: Sequence[str], labels: Mapping[str, int], num_classes: int) -> list[int]:
    """The ids by which a class-conditional model knows classes: WordNet ids where it has ImageNet-1K's, else names.

    labels  the model's names, of which a class may have several, with their ids
    Raises ValueError for classes it does not know, and for an id whose names are another class's.
    """
    found = [(name, imagenet_index(name) if num_classes == 1000 else None) for name in class_names]
    ids = [labels.get(name, -1) if number is None else number for name, number in found]
    unknown = [name for name, number in zip(class_names, ids, strict=True) if number < 0]
    if unknown:
        raise ValueError(f"it does not know {len(unknown)} of the classes, the first is {unknown[0]!r}")
    for name, number in found:
        names = {label for label, k in labels.items() if k == number}
        if number is not None and names and names.isdisjoint(describe(name).split(", ")):
            raise ValueError(f"it calls class {number} {sorted(names)[0]!r}, but {name} is {describe(name)!r}")
    return ids
