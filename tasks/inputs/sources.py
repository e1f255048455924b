"""The source that a recipe names: of storage, or one that torchvision downloads. Loads torch for the latter only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.sources import ArraySource, FolderSource, Source, SourceError, open_source
from tasks.recipe.settings import PUBLISHED, DataConfig

CIFAR_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}  # torchvision's names
IMAGENETTE_FOLDER, IMAGENETTE_IMAGES = "imagenette2", 13_394
TINY_FOLDER, TINY_IMAGES = "tiny-imagenet-200", 110_000  # the unlabelled test images are left out
TINY_URL, TINY_MD5 = "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"


def open_data(data: DataConfig, unpacked: Path) -> Source:
    """The source of a recipe; `unpacked` is the folder for what gzipped archives hold. Raises SourceError."""
    if data.source in PUBLISHED:
        if data.path is None:
            raise SourceError(f"data.path is not set: say where {data.source} is, or is to be put")
        folder = Path(data.path)
        if data.source in CIFAR_FOLDERS:
            return CifarSource(folder, data.source)
        return (ImagenetteSource if data.source == "imagenette" else TinyImagenetSource)(folder, data.max_pixels)
    return open_source(
        data.source, data.path, data.val_path, data.val_labels, unpacked=unpacked, max_pixels=data.max_pixels
    )


class CifarSource(ArraySource):
    """CIFAR-10 or CIFAR-100 as torchvision reads it: 50,000 training and 10,000 validation images, 32×32 px."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind

    def fingerprint(self) -> str:
        return self.kind  # torchvision compares its files with their checksums

    def is_fetched(self) -> bool:
        return (self.folder / CIFAR_FOLDERS[self.kind]).is_dir()

    def fetch(self) -> None:
        if not self.is_fetched():
            with _downloading(self._published.url, self.folder):
                self._published(self.folder, download=True)

    def arrays(self) -> tuple[NDArray[np.uint8], list[str], list[str]]:
        return self._parts

    @property
    def _published(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.kind.upper())

    @cached_property
    def _parts(self) -> tuple[NDArray[np.uint8], list[str], list[str]]:
        try:
            train, val = (self._published(self.folder, train=is_train) for is_train in (True, False))
        except RuntimeError as error:
            raise SourceError(
                f"{self.kind} in {self.folder / CIFAR_FOLDERS[self.kind]} is not as published ({error}): delete that "
                "folder"
            ) from error
        names = [part.classes[label] for part in (train, val) for label in part.targets]
        splits = ["train"] * len(train.data) + ["val"] * len(val.data)
        return np.concatenate([train.data, val.data]), names, splits


class TinyImagenetSource(FolderSource):
    """Stanford's Tiny-ImageNet as it is published: 200 of ImageNet's classes at 64×64 px, 500 training images of each
    in `train/<class>/images`, and 10,000 validation images whose classes stand in a table."""

    below = "images"  # beside a list of boxes

    def __init__(self, folder: Path, max_pixels: int) -> None:
        root = folder / TINY_FOLDER
        super().__init__(
            root / "train", root / "val" / "images", root / "val" / "val_annotations.txt", max_pixels=max_pixels
        )
        self.root, self.folder = root, folder

    def is_fetched(self) -> bool:
        return (self.folder / TINY_FOLDER).is_dir()

    def fetch(self) -> None:
        from torchvision.datasets.utils import download_and_extract_archive

        if not self.is_fetched():
            with _downloading(TINY_URL, self.folder):
                download_and_extract_archive(TINY_URL, str(self.folder), md5=TINY_MD5)
        if (found := len(self.listing.images)) != TINY_IMAGES:
            raise SourceError(f"{self.root} holds {found} of {TINY_IMAGES} images: delete that folder")


class ImagenetteSource(FolderSource):
    """fastai's Imagenette, version 2 at full size, as torchvision unpacks it: ten of ImageNet's classes in a split of
    its own, 70 % to 30 %, so results on it are not the papers' ImageNette (`data.subset=imagenette` of ILSVRC's)."""

    def __init__(self, folder: Path, max_pixels: int) -> None:
        super().__init__(folder / IMAGENETTE_FOLDER, max_pixels=max_pixels)
        self.root, self.folder = folder / IMAGENETTE_FOLDER, folder  # the first is not there before it is fetched

    def is_fetched(self) -> bool:
        return (self.folder / IMAGENETTE_FOLDER).is_dir()

    def fetch(self) -> None:
        from torchvision.datasets import Imagenette

        if not self.is_fetched():
            with _downloading("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2.tgz", self.folder):
                Imagenette(self.folder, download=True)
        if (found := len(self.listing.images)) != IMAGENETTE_IMAGES:
            raise SourceError(f"{self.root} holds {found} of {IMAGENETTE_IMAGES} images: delete that folder")


@contextmanager
def _downloading(url: str, folder: Path) -> Iterator[None]:
    archive = url.rsplit("/", 1)[-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors
        raise SourceError(
            f"{archive} could not be downloaded from {url} ({error}): put it into {folder} by hand"
        ) from error
