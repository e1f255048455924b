"""The source that a recipe names: of storage, or one that torchvision downloads. Loads torch for the latter only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.sources import ArraySource, FolderSource, Source, SourceError, open_source
from tasks.recipe.settings import DataConfig

CIFAR10_FOLDER, IMAGENETTE_FOLDER = "cifar-10-batches-py", "imagenette2"  # torchvision's names
IMAGENETTE_IMAGES = 13_394


def open_data(data: DataConfig, unpacked: Path) -> Source:
    """The source of a recipe; `unpacked` is the folder for what gzipped archives hold. Raises SourceError."""
    if data.source in ("cifar10", "imagenette"):
        if data.path is None:
            raise SourceError(f"data.path is not set: say where {data.source} is, or is to be put")
        folder = Path(data.path)
        return Cifar10Source(folder) if data.source == "cifar10" else ImagenetteSource(folder, data.max_pixels)
    return open_source(
        data.source, data.path, data.val_path, data.val_labels, unpacked=unpacked, max_pixels=data.max_pixels
    )


class Cifar10Source(ArraySource):
    """CIFAR-10 as torchvision reads it: 50,000 training and 10,000 validation images, 32×32 px."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fingerprint(self) -> str:
        return "cifar10"  # torchvision compares its files with their checksums

    def is_fetched(self) -> bool:
        return (self.folder / CIFAR10_FOLDER).is_dir()

    def fetch(self) -> None:
        from torchvision.datasets import CIFAR10

        if not self.is_fetched():
            with _downloading(CIFAR10.url, self.folder):
                CIFAR10(self.folder, download=True)

    def arrays(self) -> tuple[NDArray[np.uint8], list[str], list[str]]:
        return self._parts

    @cached_property
    def _parts(self) -> tuple[NDArray[np.uint8], list[str], list[str]]:
        from torchvision.datasets import CIFAR10

        try:
            train, val = (CIFAR10(self.folder, train=is_train) for is_train in (True, False))
        except RuntimeError as error:
            raise SourceError(
                f"CIFAR-10 in {self.folder / CIFAR10_FOLDER} is not as published ({error}): delete that folder"
            ) from error
        names = [part.classes[label] for part in (train, val) for label in part.targets]
        splits = ["train"] * len(train.data) + ["val"] * len(val.data)
        return np.concatenate([train.data, val.data]), names, splits


class ImagenetteSource(FolderSource):
    """fastai's Imagenette, version 2 at full size, as torchvision unpacks it: ten of ImageNet's classes in a split of
    its own, 70 % to 30 %, so results on it are not the papers' ImageNette (`data.subset=imagenette` of ILSVRC's)."""

    def __init__(self, folder: Path, max_pixels: int) -> None:
        super().__init__(folder / IMAGENETTE_FOLDER, max_pixels=max_pixels)
        self.root, self.folder = folder / IMAGENETTE_FOLDER, folder  # the first is not there before it is fetched

    def is_fetched(self) -> bool:
        return self.root.is_dir()

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
