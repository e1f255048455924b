"""Tar archives as byte ranges: what lies where in a tar, in a tar of tars, and in one that was gzipped."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from storage.files import whole_file
from storage.sources.base import Reader
from storage.sources.listing import SourceError
from storage.sources.pictures import PILLOW_MAX_PIXELS
from storage.sources.places import state_of
from storage.sources.remote import Address, AsFile, Stream
from storage.sources.scans import ArchiveSource

TAR_SUFFIXES, GZIP_SUFFIXES = (".tar",), (".tar.gz", ".tgz")
REMEDY = "fetch or write it again"
MAX_RATIO = 100  # of unpacked to packed bytes; images hardly compress, and gzip reaches 1,000 on zeros
SMALL_BYTES = 1 << 30  # which may be of any ratio
MAX_FREE_SHARE = 0.95  # of the disk's free bytes


class Member(NamedTuple):
    """A file in a tar. `other` says what it is if its bytes do not lie there: a link, a sparse file, a fifo."""

    name: str
    offset: int
    length: int
    other: str = ""


class TarFiles(ArchiveSource):
    """Images in tars. Gzipped ones are read from plain files in the folder `unpacked`."""

    suffixes = TAR_SUFFIXES + GZIP_SUFFIXES
    _stream: tuple[str, Stream] | None = None  # of the archive that is read whole, by its path

    def __init__(
        self,
        path: Path | Address,
        val_path: Path | Address | None = None,
        val_labels: Path | None = None,
        *,
        unpacked: Path,
        max_pixels: int = PILLOW_MAX_PIXELS,
    ) -> None:
        super().__init__(path, val_path, val_labels, max_pixels=max_pixels)
        self.unpacked, self.scanned = unpacked, unpacked.with_name("scanned")

    def compressed(self) -> dict[Path | Address, Path]:
        gzipped = [file for file in self.all_archives if _is_gzipped(file.name)]
        return {file: self.unpacked_of(self.path_of(file)) for file in gzipped}

    def file_of(self, path: str) -> Path | Address:
        return self.unpacked_of(path) if _is_gzipped(path) else super().file_of(path)

    def unpacked_of(self, path: str) -> Path:
        """The plain file of a gzipped archive."""
        return self.unpacked / f"{hashlib.sha256(path.encode()).hexdigest()[:8]}-{stem_of(path)}.tar"

    def reader(self, path: str) -> Reader:
        return self._stream[1] if self._stream and self._stream[0] == path else super().reader(path)

    @contextmanager
    def reading_whole(self, archive: Address) -> Iterator[None]:
        with closing(Stream(archive)) as stream:
            self._stream = self.path_of(archive), stream
            try:
                yield
            finally:
                self._stream = None

    def members(self, path: str) -> Iterator[Member]:
        """The files of a tar in their order. Raises SourceError for one that is damaged or cut off."""
        with self._opened(path) as (file, file_path):
            yield from _members(file, 0, file_path)

    def members_inside(self, path: str, inner: Member) -> Iterator[Member]:
        """The files of a tar inside a tar; offsets are those in the outer one."""
        end = inner.offset + inner.length
        with self._opened(path) as (file, file_path):
            for member in _members(file, inner.offset, file_path):
                if member.offset >= end:
                    return
                if member.offset + member.length > end:
                    raise SourceError(f"tar {inner.name} in {file_path} was cut off: {REMEDY}")
                yield member

    @contextmanager
    def _opened(self, path: str) -> Iterator[tuple[BinaryIO, Path | Address]]:
        file_path = self.file_of(path)
        if isinstance(file_path, Address):
            assert self._stream  # it is listed while it is read whole
            yield io.BufferedReader(AsFile(self._stream[1])), file_path
            return
        try:
            with file_path.open("rb") as file:
                yield file, file_path
        except OSError as error:
            reason = error.strerror
            raise SourceError(f"tar {file_path} cannot be read ({reason}): check the file and its rights") from error


def unpack(archive: Path | Address, plain: Path) -> None:
    """Decompress an archive; the plain file is there whole or not at all.

    Raises SourceError for one that is damaged, or that unpacks to more than the disk holds or than images ever do.
    """
    try:
        plain.parent.mkdir(parents=True, exist_ok=True)
        with (
            _whole(archive) as file,
            gzip.open(file) as compressed,
            whole_file(plain) as partial,
            partial.open("wb") as out,
        ):
            _copy(compressed, out, archive, plain.parent)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{archive} is damaged or cut off ({error}): fetch it again") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full(archive, plain.parent) from error
        raise SourceError(f"{archive} cannot be unpacked to {plain} ({error.strerror}): check both") from error


def _copy(compressed: gzip.GzipFile, out: BinaryIO, archive: Path | Address, folder: Path) -> None:
    """Decompress as much as is allowed."""
    free, packed = shutil.disk_usage(folder).free, state_of(archive)[0]
    most, num_bytes = max(MAX_RATIO * packed, SMALL_BYTES), 0
    while data := compressed.read(1 << 20):
        num_bytes += len(data)
        if num_bytes > free * MAX_FREE_SHARE:
            raise _full(archive, folder)
        if num_bytes > most:
            raise SourceError(
                f"{archive} ({packed:,} bytes) unpacks to more than {most:,} bytes, {MAX_RATIO} times its size, which "
                "images do not: if it is right, unpack it by hand, and give the .tar"
            )
        out.write(data)


def _full(archive: Path | Address, folder: Path) -> SourceError:
    free = shutil.disk_usage(folder).free
    return SourceError(
        f"the disk of {folder} is full, {archive} cannot be unpacked there ({free:,} bytes are free, of which "
        f"{1 - MAX_FREE_SHARE:.0%} are kept free): make room, or give another --root"
    )


@contextmanager
def _whole(archive: Path | Address) -> Iterator[BinaryIO]:
    if isinstance(archive, Address):
        with closing(Stream(archive)) as stream:
            yield io.BufferedReader(AsFile(stream))
    else:
        with archive.open("rb") as file:
            yield file


def _members(file: BinaryIO, start: int, path: Path | Address) -> Iterator[Member]:
    """The files of the tar that begins at a byte of a file."""
    file.seek(start)
    try:
        tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (the caller closes the file)
        while info := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # which would hold a million of them
            if info.size < 0:
                raise tarfile.ReadError(f"a size of {info.size}")
            if not info.isdir():
                yield Member(info.name, info.offset_data, info.size, _other_kind(info))
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes a damaged header for the end
            raise SourceError(f"tar {path} is damaged at byte {tar.offset:,}: {REMEDY}")
    except SourceError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:  # the last three of odd headers
        raise SourceError(f"tar {path} is damaged or cut off ({error}): {REMEDY}") from error


def _other_kind(info: tarfile.TarInfo) -> str:
    if info.issparse():
        return "a sparse file"
    if info.isreg():
        return ""
    return "a link" if info.issym() or info.islnk() else "a fifo or device"


def _is_gzipped(name: str) -> bool:
    return name.lower().endswith(GZIP_SUFFIXES)


def stem_of(path: str) -> str:
    """The name of a tar without its suffixes."""
    name = path.rsplit("/", 1)[-1]
    suffix = next((s for s in TAR_SUFFIXES + GZIP_SUFFIXES if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]
