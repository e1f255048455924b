"""What every source can do: list its images, and read, check and open one of them from any thread."""

from __future__ import annotations

import errno
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.cores import num_cores
from storage.files import sha256_of
from storage.sources.ground_truth import class_names
from storage.sources.listing import SPLITS, Listing, ListingBuilder, Location, RefusedImage, SourceError
from storage.sources.pictures import PILLOW_MAX_PIXELS, Unreadable, check_picture, read_picture
from storage.sources.places import is_folder, other_kind, state_of
from storage.sources.remote import NUM_READERS, Address, is_address, place_of

OPEN_FILES = 64  # kept open between reads, by each process
MAX_PIXEL_BYTES, MAX_METADATA_BYTES = 8, 64 << 20  # four channels of 16 bits that do not compress; profiles, previews


class Reader(Protocol):
    """A file that is open."""

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes; fewer only at the end of the file. Safe from any thread."""


class Source(ABC):
    """A set of labelled images. It looks at the disk once: a change afterwards takes a new source to see."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when a file is added, removed, resized or rewritten; needs no look into the files."""

    @abstractmethod
    def list_images(self) -> Listing:
        """Every image, in one order, without a look into it. Raises SourceError."""

    @abstractmethod
    def read(self, location: Location) -> bytes:
        """The bytes whose hash is the image's identity. Raises RefusedImage."""

    @abstractmethod
    def open(self, location: Location, least_px: int | None = None) -> Image.Image:
        """The image in RGB, as a viewer would show it, or one reduced to no less than least_px; see
        storage.sources.pictures.read_picture. Raises RefusedImage."""

    @abstractmethod
    def hash_checked(self, location: Location) -> str:
        """Hex of a 128-bit hash of the image's bytes, which can be shown to their end. Raises RefusedImage."""

    @cached_property
    def listing(self) -> Listing:
        """What `list_images` gave at first."""
        return self.list_images()

    def is_fetched(self) -> bool:
        """Whether there is nothing to download."""
        return True

    def fetch(self) -> None:  # noqa: B027 (most sources are there)
        """Download what is missing. Raises SourceError."""

    @property
    def num_readers(self) -> int:
        """How many threads read it best."""
        return num_cores()

    def compressed(self) -> dict[Path | Address, Path]:
        """Archives that must be unpacked before listing, each with the plain file that is expected."""
        return {}

    def scans(self) -> list[Scan]:
        """Archives that must be read whole before listing."""
        return []

    def scan(self, scan: Scan, tell: Callable[[int], None]) -> None:
        """Read one of these, and write what is found to its file; `tell` gets the number of images so far. Raises
        SourceError."""
        raise NotImplementedError


class ArraySource(Source):
    """Images that are arrays in memory: (n, H, W) or (n, H, W, 3) uint8, with a class and a split for each."""

    @abstractmethod
    def arrays(self) -> tuple[NDArray[np.uint8], list[str], list[str]]:
        """Pixels, class names and splits; called often."""

    def list_images(self) -> Listing:
        builder = ListingBuilder()
        pixels, names, splits = self.arrays()
        for i, (name, split) in enumerate(zip(names, splits, strict=True)):
            builder.add(name, split, Location(f"{i:04d}", i, pixels[i].nbytes))
        return builder.finish()

    def read(self, location: Location) -> bytes:
        return self.arrays()[0][location.offset].tobytes()

    def open(self, location: Location, least_px: int | None = None) -> Image.Image:
        return Image.fromarray(self.arrays()[0][location.offset]).convert("RGB")

    def hash_checked(self, location: Location) -> str:
        return content_hash(self.read(location))


class Place(NamedTuple):
    """Where a user's setting points, and which split is taken from there: "" for all, by the source's own names."""

    path: Path | Address
    split: str


class Scan(NamedTuple):
    """An archive that is to be read whole, and the file for what is found."""

    place: Place
    archive: Address
    file: Path


class FileSource(Source):
    """Images in files: `path` alone, or `path` for training and `val_path` for validation."""

    layout: str  # where images are looked for, for a message

    def __init__(
        self,
        path: Path | Address,
        val_path: Path | Address | None = None,
        val_labels: Path | None = None,
        *,
        max_pixels: int = PILLOW_MAX_PIXELS,
    ) -> None:
        self.root = path if isinstance(path, Path) and is_folder(path) else path.parent
        self.places = [Place(path, "")] if val_path is None else [Place(path, "train"), Place(val_path, "val")]
        self.val_labels, self.max_pixels = val_labels, max_pixels
        self._file = lru_cache(OPEN_FILES)(_opened)

    @abstractmethod
    def list_place(self, place: Place, builder: ListingBuilder) -> None:
        """List the images of a place by their own class names."""

    def list_flat(self, place: Place) -> Iterator[tuple[str, Location]]:
        """Name and location of the images of a place that has no classes."""
        raise NotImplementedError

    def list_images(self) -> Listing:
        builder = ListingBuilder()
        for place in self.places:
            if place.split == "val" and self.val_labels:
                self._list_labelled(place, self.val_labels, builder)
            else:
                self.list_place(place, builder)
        listing = builder.finish()
        if len(listing.images) == 0:
            raise SourceError(f"no images {self.layout} {' or '.join(str(place.path) for place in self.places)}")
        return listing

    def _list_labelled(self, place: Place, labels: Path, builder: ListingBuilder) -> None:
        found = sorted(self.list_flat(place))
        names = class_names(labels, [name for name, _ in found])
        for (_, at), name in zip(found, names, strict=True):
            builder.add(name, "val", at)

    def read(self, location: Location) -> bytes:
        if location.length > (most := MAX_PIXEL_BYTES * self.max_pixels + MAX_METADATA_BYTES):
            reason = f"{location.length:,} bytes are more than the {most:,} of a picture of data.max_pixels"
            raise RefusedImage(location.name, reason)
        try:
            data = self.reader(location.path).read(location.offset, location.length)
        except OSError as error:
            raise RefusedImage(location.name, error.strerror or str(error)) from error
        if location.length == 0:
            raise RefusedImage(location.name, "no bytes")
        if len(data) < location.length:
            reason = f"{len(data)} of {location.length} bytes are there: the file was cut off or is another by now"
            raise RefusedImage(location.name, reason)
        return data

    def open(self, location: Location, least_px: int | None = None) -> Image.Image:
        try:
            return read_picture(self.read(location), self.max_pixels, least_px)
        except Unreadable as error:
            raise RefusedImage(location.name, str(error)) from error

    def hash_checked(self, location: Location) -> str:
        return self.hash_if_shown(location, self.read(location))

    def hash_if_shown(self, location: Location, data: bytes) -> str:
        """`hash_checked` of an image that was read."""
        try:
            check_picture(data, self.max_pixels)
        except Unreadable as error:
            raise RefusedImage(location.name, str(error)) from error
        return content_hash(data)

    def reader(self, path: str) -> Reader:
        """What reads the file that a location's path means. Raises OSError, SourceError."""
        return self._file(self.file_of(path))

    def file_of(self, path: str) -> Path | Address:
        """The file that a location's path means."""
        return place_of(path) if is_address(path) or path.startswith("/") else self.root / path

    def path_of(self, file: Path | Address) -> str:
        """A file as locations name it."""
        if isinstance(file, Address) or isinstance(self.root, Address):
            return str(file if isinstance(file, Address) else file.absolute()).removeprefix(f"{self.root}/")
        return file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else str(file.absolute())

    @property
    def num_readers(self) -> int:
        return NUM_READERS if any(isinstance(place.path, Address) for place in self.places) else num_cores()


def split_in(place: Place, own: str) -> str | None:
    """The split of an image that the source's own folder or file name puts in `own`, None to leave the image out."""
    split = SPLITS.get(own, "")
    if not place.split:
        return split
    other = ("val", "test") if place.split == "train" else ("train",)
    return None if split in other else place.split


def content_hash(data: bytes) -> str:
    """Hex of a 128-bit hash of an image's bytes: equal images have equal hashes, wherever they lie."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def stat_hash(files: Sequence[Path | Address]) -> str:
    """Changes when a file's name, size or time does. Raises SourceError for one that is not there, or is no file."""
    return sha256_of([[str(file), *state_of(file)] for file in files])


def _opened(file: Path | Address) -> Reader:
    return file if isinstance(file, Address) else _File(file)


class _File:
    """An open file, closed when the last thread that reads it lets go of it."""

    def __init__(self, path: Path) -> None:
        if other := other_kind(path.stat().st_mode):  # opening a fifo could take for ever
            raise OSError(errno.EINVAL, f"{other}, not a file")
        self._descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes; fewer only at the end of the file."""
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length and (more := os.pread(self._descriptor, length - len(data), offset + len(data))):
            data += more
        return data
