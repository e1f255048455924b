"""Image sources: where the real images are, listed lazily and read one at a time. Nothing is copied."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.files import sha256_of

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
IMAGE_SUFFIXES_TEXT = " ".join(sorted(IMAGE_SUFFIXES))
SPLITS = ("train", "val")


class SourceError(ValueError):
    """A source is missing or not laid out as expected; the message names the value and the remedy."""


@dataclass(frozen=True)
class Item:
    """One image of a source. `split` is "" where the source leaves splitting to us."""

    path: str
    class_name: str
    split: str
    length: int
    mtime_ns: int


class Source(Protocol):
    """What the shard stage needs to know about a set of images."""

    def items(self) -> list[Item]:
        """Every image, in one order, without opening it."""

    def read(self, path: str) -> bytes:
        """The bytes whose hash is the image's identity."""

    def open(self, path: str) -> Image.Image:
        """The image, decoded. Raises OSError for a file that is no readable image."""


class DigitsSource:
    """scikit-learn's 1,797 handwritten digits, 8×8 px, 17 grey levels."""

    @cached_property
    def _digits(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target

    def items(self) -> list[Item]:
        """See Source."""
        _, labels = self._digits
        return [Item(f"{i:04d}", str(label), "", 64, 0) for i, label in enumerate(labels)]

    def read(self, path: str) -> bytes:
        """See Source."""
        return self._digits[0][int(path)].tobytes()

    def open(self, path: str) -> Image.Image:
        """See Source."""
        return Image.fromarray(self._digits[0][int(path)])


class FolderSource:
    """A class-folder tree: `<root>/train/<class>/*.jpg` with an optional `val`, or `<root>/<class>/*.jpg`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def items(self) -> list[Item]:
        """See Source."""
        if not self.root.is_dir():
            raise SourceError(f"data folder {self.root} does not exist: give the path of a folder of class folders")
        has_splits = (self.root / "train").is_dir()
        places = [(s, self.root / s) for s in SPLITS if (self.root / s).is_dir()] if has_splits else [("", self.root)]
        found = [item for split, place in places for item in self._class_folders(split, place)]
        if not found:
            raise SourceError(f"no images ({IMAGE_SUFFIXES_TEXT}) in class folders below {places[0][1]}")
        return found

    def _class_folders(self, split: str, place: Path) -> list[Item]:
        found = []
        for folder in sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith(".")):
            if folder.name.startswith("__"):
                raise SourceError(f"class folder {folder} starts with '__', which a zarr store cannot hold: rename it")
            for file in sorted(folder.iterdir()):
                if file.suffix.lower() in IMAGE_SUFFIXES:
                    at = file.stat()
                    name = file.relative_to(self.root).as_posix()
                    found.append(Item(name, folder.name, split, at.st_size, at.st_mtime_ns))
        return found

    def read(self, path: str) -> bytes:
        """See Source."""
        return (self.root / path).read_bytes()

    def open(self, path: str) -> Image.Image:
        """See Source."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            try:
                image = Image.open(self.root / path)
                image.load()
            except (Image.DecompressionBombWarning, Image.DecompressionBombError, ValueError, SyntaxError) as error:
                raise OSError(str(error)) from error
        return image


def open_source(kind: str, path: str | None) -> Source:
    """The source a recipe names: "digits", or "folder" with its path."""
    if kind == "digits":
        return DigitsSource()
    if path is None:
        raise SourceError("data.path is not set: give the folder of the images, e.g. --set data.path=/data/imagenet")
    return FolderSource(Path(path))


def fingerprint(items: list[Item]) -> str:
    """Changes when a file is added, removed, resized or rewritten; needs no look into the files."""
    return sha256_of([[i.path, i.class_name, i.split, i.length, i.mtime_ns] for i in items])


def content_hash(source: Source, path: str) -> str:
    """Hex of a 128-bit hash of an image's bytes: equal images have equal hashes, wherever they lie."""
    return hashlib.blake2b(source.read(path), digest_size=16).hexdigest()
