"""Tar archives as byte ranges: what lies where in a tar, in a tar of tars, and in one that was gzipped."""

from __future__ import annotations

import errno
import gzip
import hashlib
import shutil
import tarfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

from storage.files import whole_file
from storage.sources.base import FileSource, Place, stat_hash
from storage.sources.ground_truth import label_files
from storage.sources.listing import ListingBuilder, SourceError
from storage.sources.pictures import PILLOW_MAX_PIXELS
from storage.sources.places import named_files

TAR_SUFFIXES, GZIP_SUFFIXES = (".tar",), (".tar.gz", ".tgz")


class Member(NamedTuple):
    """A file in a tar; `is_plain` is False for links and sparse files, whose bytes do not lie there."""

    name: str
    offset: int
    length: int
    is_plain: bool


class TarFiles(FileSource):
    """Images in tars. Gzipped ones are read from plain files in the folder `unpacked`."""

    def __init__(
        self,
        path: Path,
        val_path: Path | None = None,
        val_labels: Path | None = None,
        *,
        unpacked: Path,
        max_pixels: int = PILLOW_MAX_PIXELS,
    ) -> None:
        super().__init__(path, val_path, val_labels, max_pixels=max_pixels)
        self.unpacked = unpacked

    @cached_property
    def _tars(self) -> dict[Place, list[Path]]:
        return {place: named_files(place.path, TAR_SUFFIXES + GZIP_SUFFIXES) for place in self.places}

    def fingerprint(self) -> str:
        tars = [file for files in self._tars.values() for file in files]
        return stat_hash(tars + (label_files(self.val_labels) if self.val_labels else []))

    def compressed(self) -> dict[Path, Path]:
        tars = [file for files in self._tars.values() for file in files]
        return {file: self.file_of(self.path_of(file)) for file in tars if _is_gzipped(file.name)}

    def file_of(self, path: str) -> Path:
        if not _is_gzipped(path):
            return super().file_of(path)
        return self.unpacked / f"{hashlib.sha256(path.encode()).hexdigest()[:8]}-{stem_of(path)}.tar"

    def list_place(self, place: Place, builder: ListingBuilder) -> None:
        for tar in self._tars[place]:
            self.list_tar(place, self.path_of(tar), builder)

    @abstractmethod
    def list_tar(self, place: Place, path: str, builder: ListingBuilder) -> None:
        """List the images of one tar, which locations name `path`."""

    def members(self, path: str) -> Iterator[Member]:
        """The files of a tar in their order. Raises SourceError for one that is damaged or cut off."""
        file_path = self.file_of(path)
        with file_path.open("rb") as file:
            yield from _members(file, 0, file_path)

    def members_inside(self, path: str, inner: Member) -> Iterator[Member]:
        """The files of a tar inside a tar; offsets are those in the outer one."""
        file_path = self.file_of(path)
        with file_path.open("rb") as file:
            for member in _members(file, inner.offset, file_path):
                if member.offset >= inner.offset + inner.length:
                    return
                yield member


def unpack(archive: Path, plain: Path) -> None:
    """Decompress an archive; the plain file is there whole or not at all. Raises SourceError."""
    try:
        with gzip.open(archive) as compressed, whole_file(plain) as partial, partial.open("wb") as out:
            shutil.copyfileobj(compressed, out, 1 << 20)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{archive} is damaged or cut off ({error}): fetch it again") from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise SourceError(
            f"the disk of {plain.parent} is full, {archive} cannot be unpacked there: make room, or give another --root"
        ) from error


def _members(file: BinaryIO, start: int, path: Path) -> Iterator[Member]:
    """The files of the tar that begins at a byte of a file."""
    file.seek(start)
    remedy = "fetch or write it again"
    try:
        tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (the caller closes the file)
        while info := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # which would hold a million of them
            if not info.isdir():
                yield Member(info.name, info.offset_data, info.size, info.isreg() and not info.issparse())
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes a damaged header for the end
            raise SourceError(f"tar {path} is damaged at byte {tar.offset:,}: {remedy}")
    except tarfile.TarError as error:
        raise SourceError(f"tar {path} is damaged or cut off ({error}): {remedy}") from error


def _is_gzipped(name: str) -> bool:
    return name.lower().endswith(GZIP_SUFFIXES)


def stem_of(path: str) -> str:
    """The name of a tar without its suffixes."""
    name = path.rsplit("/", 1)[-1]
    suffix = next((s for s in TAR_SUFFIXES + GZIP_SUFFIXES if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]
