"""Images as single files, on a disk or at an address: a tree of class folders, and ILSVRC's flat validation folder."""

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
from storage.sources.remote import Address


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
        images = self._at_address(place.path) if isinstance(place.path, Address) else self._on_disk(place.path)
        for own, class_name, at in images:
            if (split := split_in(place, own)) is not None:
                builder.add(class_name, split, at)

    def _on_disk(self, path: Path) -> Iterator[tuple[str, str, Location]]:
        """The folder that says the split, the class and the location of each image below a folder."""
        has_splits = is_folder(path / "train")
        for name in [name for name in SPLITS if is_folder(path / name)] if has_splits else [""]:
            for folder in _class_folders(path / name):
                yield from ((name, folder.name, at) for _, at in self._images(folder / self.below))

    def _at_address(self, address: Address) -> list[tuple[str, str, Location]]:
        """What `_on_disk` tells of a folder, in the same order."""
        files = [(name.split("/"), size, mark) for name, size, mark in address.tree()]
        has_splits = any(parts[0] == "train" and len(parts) > 1 for parts, _, _ in files)
        found = []
        for parts, size, mark in files:
            own, *inside = parts if has_splits else ("", *parts)
            if (own in SPLITS or not has_splits) and len(inside) == 2 and _is_seen(*inside):
                at = self._location(self.path_of(address / "/".join(parts)), size, mark)
                found.append((own, inside[0], at))
        return sorted(found, key=lambda image: (["", *SPLITS].index(image[0]), image[1], image[2].path))

    def list_flat(self, place: Place) -> Iterator[tuple[str, Location]]:
        if isinstance(place.path, Address):
            for name, size, mark in place.path.tree():
                if "/" not in name and is_image_name(name):
                    yield name, self._location(self.path_of(place.path / name), size, mark)
        else:
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
            yield entry.name, self._location(path, size, time)

    def _location(self, path: str, size: int, time: int | str) -> Location:
        self._stats.update(f"{path}\0{size}\0{time}\n".encode(errors="surrogateescape"))
        return Location(path, 0, size)


def _is_seen(class_name: str, name: str) -> bool:
    return not class_name.startswith(".") and is_image_name(name)


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
