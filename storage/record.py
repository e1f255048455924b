"""What an artifact says of itself on disk: its plan, a mark per unit, its record. Knows no artifact."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, field_validator

from storage.files import hash_file, read_checked, sha256_of, write_checked
from storage.names import unit_path


class _Saved(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def save(self, path: Path) -> None:
        """Write it with a checksum of itself, whole or not at all."""
        write_checked(path, self.model_dump())


Saved = TypeVar("Saved", bound=_Saved)


class FileStamp(_Saved):
    """A file as its unit left it. Same size and time: taken as unchanged; another time: hashed again."""

    num_bytes: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Of a file as it is now."""
        at = path.stat()
        return cls(num_bytes=at.st_size, mtime_ns=at.st_mtime_ns, sha256=hash_file(path))

    def holds(self, path: Path, *, deep: bool) -> bool:
        """Whether the file is what was written; `deep` reads it even if size and time say so."""
        try:
            now = path.stat()
        except OSError:
            return False
        if now.st_size != self.num_bytes:
            return False
        return (now.st_mtime_ns == self.mtime_ns and not deep) or hash_file(path) == self.sha256

    def is_read_from(self, path: Path) -> bool:
        """Whether the file's bytes are what was written. They are read once in a process, while it says no change."""
        try:
            return self.sha256 == hash_once(path)
        except OSError:
            return False


def hash_once(path: Path) -> str:
    """Hex sha256 of a file, which a process reads once while the file says no change."""
    at = path.stat()
    return _hash_once(path, (at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns))


@lru_cache(maxsize=1 << 16)
def _hash_once(path: Path, version: tuple[int, ...]) -> str:
    return hash_file(path)


class Mark(_Saved):
    """A unit of an artifact is complete. `facts` are small numbers about it, `seconds` where its time went.

    Names of files are relative to the artifact's folder, and inside it.
    """

    unit: str
    inputs: str
    files: dict[str, FileStamp]
    facts: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    peak_bytes: int = 0

    @field_validator("files")
    @classmethod
    def _lie_inside(cls, files: dict[str, FileStamp]) -> dict[str, FileStamp]:
        for name in files:
            if "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
                raise ValueError(f"{name!r} is no file inside the artifact")
        return files

    @property
    def content(self) -> str:
        """Hash of the unit's files, by name."""
        return sha256_of({name: stamp.sha256 for name, stamp in self.files.items()})


class Plan(_Saved):
    """What an artifact is made with, and from which `<stage>/<digest>` by name. Written first."""

    stage: str
    digest: str
    version: int = 0  # plans of old did not say
    config: dict[str, Any]
    parents: dict[str, str]
    stages: dict[str, str]


class Record(_Saved):
    """A whole artifact is complete. Written last."""

    stage: str
    digest: str
    version: int
    config: dict[str, Any]
    parents: dict[str, str]
    inputs: dict[str, str]
    content: str
    units: dict[str, str]
    facts: dict[str, Any]
    seconds: dict[str, float]
    peak_bytes: int
    versions: dict[str, str]
    finished: float
    roots: dict[str, FileStamp] = {}  # of its stores, by their names; records of old have bare groups there


def mark_path(folder: Path, unit: str) -> Path:
    """Where an artifact's folder keeps the mark of a unit."""
    return folder / "marks" / f"{unit_path(unit)}.json"


def damaged_files(folder: Path, mark: Mark, *, deep: bool = False) -> list[str]:
    """Names of a unit's files below an artifact's folder that are gone or not as they were written."""
    return [name for name, stamp in mark.files.items() if not stamp.holds(folder / name, deep=deep)]


def load_saved(model: type[Saved], path: Path) -> Saved | None:
    """A plan or record as it was written, None where there is none, or a damaged one."""
    try:
        return model.model_validate(read_checked(path))
    except (OSError, ValueError):
        return None


def load_mark(folder: Path, path: Path) -> Mark | None:
    """A mark of an artifact's folder as it was written; None also for one at the place of another unit's, or of files
    below a link, which may lead outside."""
    mark = load_saved(Mark, path)
    if mark is None or mark_path(folder, mark.unit) != path:
        return None
    return None if any(os.path.islink(f"{folder}/{at}") for at in _folders(mark.files)) else mark  # noqa: PTH114 (faster)


def _folders(names: Iterable[str]) -> set[str]:
    """All folders that files lie in, directly or not."""
    found = {""}
    for name in names:
        while (name := name.rpartition("/")[0]) not in found:
            found.add(name)
    return found - {""}
