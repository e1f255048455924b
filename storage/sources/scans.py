"""Sources of archives. One at an address is read once, from its start to its end, and what that found is kept: which
images are in it, and the hash of each."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from storage.cores import num_cores
from storage.files import write_json
from storage.sources.base import FileSource, Place, Scan, stat_hash
from storage.sources.ground_truth import label_files
from storage.sources.listing import ListingBuilder, Location, RefusedImage
from storage.sources.places import named_files
from storage.sources.remote import Address

MAX_WAITING = 64  # images in memory that are not looked at yet
TELL_EVERY = 1024  # images


class ArchiveSource(FileSource):
    """Images in archives. Those at addresses are listed from their scans, which must be there."""

    suffixes: tuple[str, ...]
    scanned: Path | None = None  # the folder for scans of what lies at addresses

    @cached_property
    def archives(self) -> dict[Place, Sequence[Path | Address]]:
        """The archives of each place, in their order; found when first asked for."""
        return {place: named_files(place.path, self.suffixes) for place in self.places}

    @property
    def all_archives(self) -> list[Path | Address]:
        """The archives of all places."""
        return [file for files in self.archives.values() for file in files]

    @abstractmethod
    def list_archive(self, place: Place, path: str, builder: ListingBuilder) -> None:
        """List the images of one archive, which locations name `path`."""

    def list_flat_archive(self, path: str) -> Iterator[tuple[str, Location]]:
        """Name and location of the images of an archive that has no classes."""
        raise NotImplementedError

    def reading_whole(self, archive: Address) -> AbstractContextManager[object]:
        """While one is read from its start to its end."""
        return nullcontext()

    def fingerprint(self) -> str:
        return stat_hash([*self.all_archives, *(label_files(self.val_labels) if self.val_labels else [])])

    def list_place(self, place: Place, builder: ListingBuilder) -> None:
        for path in map(self.path_of, self.archives[place]):
            if scan := self._scan_of.get((place, path)):
                found = _read(scan.file)
                for class_name, split, *at in found["images"]:
                    builder.add(class_name, split, Location(*at[:4]))
                for refused in found["refused"]:
                    builder.refuse(*refused)
            else:
                self.list_archive(place, path, builder)

    def list_flat(self, place: Place) -> Iterator[tuple[str, Location]]:
        for path in map(self.path_of, self.archives[place]):
            if scan := self._scan_of.get((place, path)):
                for name, _, *at in _read(scan.file)["images"]:
                    yield name, Location(*at[:4])
            else:
                yield from self.list_flat_archive(path)

    def hash_checked(self, location: Location) -> str:
        if not (scan := self._scan_at.get(location.path)):
            return super().hash_checked(location)
        found, reason = self._outcomes(scan.file)[location.offset]
        if reason:
            raise RefusedImage(location.name, reason)
        return found

    def scans(self) -> list[Scan]:
        return list(self._scan_of.values())

    def scan(self, scan: Scan, tell: Callable[[int], None]) -> None:
        path = self.path_of(scan.archive)
        with ThreadPoolExecutor(num_cores()) as pool, self.reading_whole(scan.archive):
            recorder = _Recorder(self, pool, tell)
            if scan.place.split == "val" and self.val_labels:
                for name, at in self.list_flat_archive(path):
                    recorder.add(name, "val", at)
            else:
                self.list_archive(scan.place, path, recorder)
            write_json(scan.file, recorder.found())

    @cached_property
    def _scan_of(self) -> dict[tuple[Place, str], Scan]:
        """By place and archive."""
        found = {}
        for place, archives in self.archives.items():
            for archive in archives:
                path = self.path_of(archive)
                if isinstance(archive, Address) and self.file_of(path) == archive and self.scanned:
                    name = hashlib.sha256(f"{place.split}\0{archive}".encode()).hexdigest()[:8]
                    found[place, path] = Scan(place, archive, self.scanned / f"{name}-{archive.name}.json")
        return found

    @cached_property
    def _scan_at(self) -> dict[str, Scan]:
        return {path: scan for (_, path), scan in self._scan_of.items()}

    @cached_property
    def _outcomes(self) -> Callable[[Path], dict[int, tuple[str, str]]]:
        """Of a scan's images the hash, or why there is none, by their offset."""
        return lru_cache(2)(lambda file: {row[3]: (row[-2], row[-1]) for row in _read(file)["images"]})


class _Recorder(ListingBuilder):
    """Takes what an archive lists, reads each image at once, and has it looked at by threads."""

    def __init__(self, source: ArchiveSource, pool: ThreadPoolExecutor, tell: Callable[[int], None]) -> None:
        super().__init__()
        self._source, self._pool, self._tell = source, pool, tell
        self._rows: list[tuple[Any, ...]] = []
        self._looked: list[tuple[str, str]] = []  # of the first rows
        self._waiting: deque[Future[tuple[str, str]]] = deque()
        self._out: list[tuple[str, ...]] = []

    def add(self, class_name: str, split: str, at: Location) -> None:
        self._rows.append((class_name, split, *at))
        self._waiting.append(self._pool.submit(self._look, at, self._read(at)))
        if len(self._waiting) > MAX_WAITING:
            self._looked.append(self._waiting.popleft().result())
        if len(self._rows) % TELL_EVERY == 0:
            self._tell(len(self._rows))

    def refuse(self, class_name: str, split: str, path: str, reason: str) -> None:
        self._out.append((class_name, split, path, reason))

    def found(self) -> dict[str, list[Any]]:
        """Images with their hashes or what is wrong with them, and what was refused."""
        looked = self._looked + [future.result() for future in self._waiting]
        return {"images": [(*row, *end) for row, end in zip(self._rows, looked, strict=True)], "refused": self._out}

    def _read(self, at: Location) -> bytes | RefusedImage:
        try:
            return self._source.read(at)
        except RefusedImage as error:
            return error

    def _look(self, at: Location, data: bytes | RefusedImage) -> tuple[str, str]:
        try:
            if isinstance(data, RefusedImage):
                raise data
            return self._source.hash_if_shown(at, data), ""
        except RefusedImage as error:
            return "", error.reason


def _read(file: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = json.loads(file.read_bytes())
    return found
