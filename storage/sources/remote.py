"""Files at addresses that fsspec opens (s3://, https://, hf://, …), read by byte ranges; what fails is tried again.

Loads fsspec when the first address is opened; local files do without.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from storage.sources.listing import SourceError, one_line

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://")
EXTRAS = {"s3": "ddoq[s3]", "s3a": "ddoq[s3]", "http": "ddoq[http]", "https": "ddoq[http]"}
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or for a public bucket FSSPEC_S3_ANON=true",
    "hf": "accept the data set's terms, and set HF_TOKEN",
}
AGAIN = (408, 429)  # of the statuses that blame the client, those to ask again after
NUM_READERS = 16  # ranges that are asked for at once
WAITS_SECONDS = (0.5, 1.0, 2.0, 4.0)  # before each further attempt
BLOCK_BYTES, BLOCKS_AHEAD, BLOCKS_BEHIND = 8 << 20, 4, 2
# What a file system tells of a file, of which one changes with its content.
MARKS = ("ETag", "blob_id", "mtime", "LastModified", "Last-Modified", "created")
T = TypeVar("T")


@dataclass(frozen=True)
class Address:
    """What an address names: a file, a folder or a pattern, with those of Path's methods that sources need."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.text}/{name}")

    @property
    def name(self) -> str:
        """The last part, without a query."""
        return self.text.partition("?")[0].rsplit("/", 1)[-1]

    @property
    def parent(self) -> Address:
        """Without the last part, whatever there is."""
        return Address(self.text.rsplit("/", 1)[0])

    @cached_property
    def state(self) -> tuple[int, str]:
        """Bytes, and what changes when they are written anew; asked for once. Raises SourceError for no file."""
        info = self._ask(lambda fs, path: fs.info(path))
        if info.get("type") == "directory":
            raise SourceError(f"{self} is a folder, not a file: give another address")
        if info.get("size") is None:
            raise SourceError(f"{self}: the server does not say how many bytes it has: fetch it, and give its path")
        return info["size"], _mark(info)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.state[0]

    def look_anew(self) -> None:
        """Let fsspec forget what it has listed before in this process."""
        self._ask(lambda fs, path: fs.invalidate_cache())

    def found(self, suffixes: tuple[str, ...]) -> list[Address]:
        """Of a pattern what fits it, of a folder what is in it; of a file itself."""
        if "*" in self.text or "[" in self.text:
            return self._named(self._ask(lambda fs, path: fs.glob(path)))
        if self.name.lower().endswith(suffixes) or not self._ask(lambda fs, path: fs.isdir(path)):
            return [self]
        return self._named(self._ask(lambda fs, path: fs.ls(path, detail=False)))

    def tree(self) -> list[tuple[str, int, str]]:
        """The files below a folder, of one listing: the path from there, the bytes, and what changes when they are
        written anew. Raises SourceError."""
        self.look_anew()
        found = self._ask(lambda fs, path: fs.find(path, detail=True))
        beginning = f"{self._at[1]}/"
        below = [(path, info) for path, info in sorted(found.items()) if path.startswith(beginning)]
        return [(path.removeprefix(beginning), info.get("size") or 0, _mark(info)) for path, info in below]

    def read(self, offset: int, length: int) -> bytes:
        """Just these bytes, which must be there. Safe from any thread. Raises SourceError."""

        def ask(fs: Any, path: str) -> bytes:
            exactly = {} if fs.async_impl else {"cache_type": "none"}  # or more would be fetched
            data: bytes = fs.cat_file(path, start=offset, end=offset + length, **exactly)
            if len(data) > length:
                raise SourceError(f"{self}: the server knows no byte ranges: fetch the file, and give its path")
            if len(data) < length:
                raise OSError(f"{len(data):,} of {length:,} bytes came")
            return data

        return self._ask(ask) if length else b""

    @cached_property
    def _at(self) -> tuple[Any, str]:
        """The file system, and the path in there."""
        from fsspec.core import url_to_fs

        return url_to_fs(self.text)

    def _named(self, paths: list[str]) -> list[Address]:
        """Paths in the file system as addresses that begin as this one does."""
        beginning = self.text.removesuffix(self._at[1])
        return [Address(beginning + path) for path in sorted(paths)]

    def _ask(self, question: Callable[[Any, str], T]) -> T:
        """The answer to a question about (file system, path). Raises SourceError."""
        waits = list(WAITS_SECONDS)
        while True:
            try:
                return question(*self._at)
            except (SourceError, AttributeError, TypeError):
                raise
            except Exception as error:  # every file system has its own
                cause = self._final_cause(error)
                if not cause and not waits:
                    failed = f"failed {len(WAITS_SECONDS) + 1} times ({_told(error)})"
                    cause = f"{failed}: check the connection; the next run goes on from what is done"
                if cause:
                    raise SourceError(f"{self} {cause}") from error
                time.sleep(waits.pop(0))

    def _final_cause(self, error: BaseException) -> str:
        """What asking again would not change, and the remedy; "" for anything else."""
        protocol = self.text.partition("://")[0]
        if protocol in ("http", "https") and isinstance(error, FileNotFoundError) and error.__cause__:
            return self._final_cause(error.__cause__)  # of whatever fails it says that there is no file
        told, response = _told(error), getattr(error, "response", None)
        status = getattr(error, "status", None) or getattr(response, "status_code", None) or 0
        if isinstance(error, ImportError):
            remedy = f"pip install '{EXTRAS[protocol]}'" if protocol in EXTRAS else "install it"
            return f"cannot be read without another package ({told}): {remedy}"
        if isinstance(error, ValueError) and "rotocol" in told:
            return f"cannot be opened ({told}): give a path, or an address that fsspec knows, like s3:// or https://"
        if isinstance(error, FileNotFoundError) or status in (404, 410):
            return f"is not there ({told}): check the address"
        if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
            return (
                f"may not be read ({told}): {CREDENTIALS.get(protocol, 'check the credentials that its server wants')}"
            )
        return (
            f"cannot be read ({told}): check the address" if status in range(400, 500) and status not in AGAIN else ""
        )


class Stream:
    """A file that is read from its start to its end: blocks are fetched ahead, several at once, the last ones kept."""

    def __init__(self, address: Address) -> None:
        self.address, self.size = address, address.size
        self._pool = ThreadPoolExecutor(BLOCKS_AHEAD)
        self._blocks: dict[int, Future[bytes]] = {}

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes; fewer only at the end of the file. Raises SourceError."""
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        first, last = offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        for k in range(first, min(last + BLOCKS_AHEAD, (self.size - 1) // BLOCK_BYTES) + 1):
            if k not in self._blocks:
                self._blocks[k] = self._pool.submit(self._fetch, k)
        for k in [k for k in self._blocks if k < first - BLOCKS_BEHIND]:
            del self._blocks[k]
        starts = ((k, k * BLOCK_BYTES) for k in range(first, last + 1))
        return b"".join(self._blocks[k].result()[max(offset - at, 0) : end - at] for k, at in starts)

    def close(self) -> None:
        """Fetch no more."""
        self._pool.shutdown(cancel_futures=True)

    def _fetch(self, k: int) -> bytes:
        start = k * BLOCK_BYTES
        return self.address.read(start, min(BLOCK_BYTES, self.size - start))


class AsFile(io.RawIOBase):
    """What libraries that want a file read from: the bytes of an address or a stream."""

    def __init__(self, source: Address | Stream) -> None:
        self.source, self._position = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.source.size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), max(self.source.size - self._position, 0))
        buffer[:length] = self.source.read(self._position, length)
        self._position += length
        return length


def place_of(text: str) -> Path | Address:
    """What a setting names, or the whole path of a location."""
    return Address(text) if is_address(text) else Path(text)


def is_address(text: str) -> bool:
    """Whether fsspec shall open it."""
    return bool(ADDRESS.match(text))


def _mark(info: dict[str, Any]) -> str:
    return str(next((info[mark] for mark in MARKS if info.get(mark)), ""))


def _told(error: BaseException) -> str:
    return one_line(error) or type(error).__name__
