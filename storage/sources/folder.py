"""Images as single files: a tree of class folders, and ILSVRC's flat validation folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from storage.sources.base import FileSource, Place, split_in, stat_hash
from storage.sources.ground_truth import label_files
from storage.sources.listing import (
    IMAGE_SUFFIXES_TEXT,
    SPLITS,
    Listing,
    ListingBuilder,
    Location,
    SourceError,
    is_image_name,
)
from storage.sources.places import is_folder


class FolderSource(FileSource):
    """`<root>/train/<class>/*.jpg` with an optional `val`, or `<root>/<class>/*.jpg`."""

    layout = f"({IMAGE_SUFFIXES_TEXT}) in class folders below"
    below = ""  # where in a class's folder its images are

    def fingerprint(self) -> str:
        return self._seen[1]

    def list_images(self) -> Listing:
        return self._seen[0]

    @cached_property
    def _seen(self) -> tuple[Listing, str]:
        """The listing and the fingerprint, of one walk."""
        self._stats = hashlib.sha256(stat_hash(label_files(self.val_labels)).encode() if self.val_labels else b"")
        return super().list_images(), self._stats.hexdigest()

    def list_place(self, place: Place, builder: ListingBuilder) -> None:
        assert isinstance(place.path, Path)
        has_splits = is_folder(place.path / "train")
        names = [name for name in SPLITS if is_folder(place.path / name)] if has_splits else [""]
        for name in names:
            split = split_in(place, name)
            for folder in _class_folders(place.path / name) if split is not None else []:
                for _, at in self._images(folder / self.below):
                    builder.add(folder.name, split or "", at)

    def list_flat(self, place: Place) -> Iterator[tuple[str, Location]]:
        assert isinstance(place.path, Path)
        yield from self._images(place.path)

    def _images(self, folder: Path) -> Iterator[tuple[str, Location]]:
        """Name and location of the images in a folder; one that cannot be looked at has no length."""
        for entry in sorted(_scan(folder), key=lambda entry: entry.name):
            if not is_image_name(entry.name):
                continue
            path = self.path_of(Path(entry.path))
            try:
                size, time = (at := entry.stat()).st_size, at.st_mtime_ns
            except OSError:
                size, time = 0, 0
            self._stats.update(f"{path}\0{size}\0{time}\n".encode(errors="surrogateescape"))
            yield entry.name, Location(path, 0, size)


def _class_folders(place: Path) -> list[Path]:
    return sorted(path for entry in _scan(place) if not entry.name.startswith(".") and is_folder(path := Path(entry)))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"data folder {folder} does not exist: give the path of a folder of class folders") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"data folder {folder} cannot be read ({error}): check the path and its rights") from error
