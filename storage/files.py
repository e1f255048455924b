"""Writes that are whole or absent, and hashes of what was written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

SYNCED_AT_ONCE = 16
CHECKSUM = "sha256"  # the key of a JSON object's checksum in itself


def canonical_json(value: Any) -> bytes:
    """One spelling for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256_of(value: Any) -> str:
    """Hex sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def hash_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file that a reader sees whole or not at all, also after `kill -9` or on a full disk."""
    with whole_file(path, durable=durable) as partial:
        partial.write_bytes(data)


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A scratch file to write that takes the place of `path` when the block ends, and vanishes if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for programs and people, whole or not at all."""
    write_whole(path, _spelled(value))


def _spelled(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def write_checked(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum of itself, whole or not at all."""
    body = json.loads(canonical_json(value))
    write_json(path, {**body, CHECKSUM: sha256_of(body)})


def read_checked(path: Path) -> dict[str, Any]:
    """A JSON object that `write_checked` wrote, without its checksum. One of old, without any, is taken as it is.

    Raises OSError, and ValueError for what is not as it was written.
    """
    data = path.read_bytes()
    body = _json_object(path, data)
    if CHECKSUM in body:
        as_written = data == _spelled(body)  # another last digit of a number may be no other number
        if body.pop(CHECKSUM) != sha256_of(body) or not as_written:
            raise ValueError(f"{path} is not as it was written")
    return body


def has_checksum(path: Path) -> bool:
    """Whether a JSON object says its own checksum. Raises as `read_checked` does."""
    return CHECKSUM in _json_object(path, path.read_bytes())


def _json_object(path: Path, data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except RecursionError as error:
        raise ValueError(f"{path} is too deep") from error
    if not isinstance(body, dict):
        raise ValueError(f"{path} holds no JSON object")
    return body


@contextmanager
def whole_folder(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A scratch folder that takes the place of `path` when the block ends, and vanishes if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
        if durable:
            sync_all(list_files(partial))
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sync_all(paths: Sequence[Path]) -> None:
    """Bring files to the disk together: it takes hardly longer to write many of them than one."""
    list(_pool(os.getpid()).map(sync, paths))


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process: one that was forked has none of its parent's."""
    return ThreadPoolExecutor(SYNCED_AT_ONCE)


def sync(path: Path) -> None:
    """Bring a file's bytes from the system's cache to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_files(folder: Path) -> list[Path]:
    """Every file below a folder, in one order; leftovers of writes that were cut off are not listed."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and not _is_leftover(p.relative_to(folder)))


def _is_leftover(path: Path) -> bool:
    return any(part.endswith(".partial") for part in path.parts)


def drop_leftovers(folder: Path, *, keep: str) -> None:
    """Delete what writes below a folder, ours and zarr's, left when they were cut off, but files like `keep`."""
    for partial in list(folder.rglob("*.partial")):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        elif not partial.name.startswith(f".{keep}."):
            partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
