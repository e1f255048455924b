"""What classes are called: ImageNet's folders are named by WordNet id, priors know them by name or by number."""

from __future__ import annotations

from functools import lru_cache

from timm.data import ImageNetInfo


def describe(class_name: str) -> str:
    """The class line of a WordNet id of ImageNet-1K, "tench, Tinca tinca"; any other name stays as it is."""
    imagenet = _imagenet()
    return str(imagenet.label_name_to_description(class_name)) if class_name in _index() else class_name


def imagenet_index(class_name: str) -> int | None:
    """The number 0 to 999 of a WordNet id in ImageNet-1K's order, None for any other name."""
    return _index().get(class_name)


@lru_cache(maxsize=1)
def _imagenet() -> ImageNetInfo:
    return ImageNetInfo()


@lru_cache(maxsize=1)
def _index() -> dict[str, int]:
    return {name: k for k, name in enumerate(_imagenet().label_names())}
