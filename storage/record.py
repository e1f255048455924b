"""What an artifact says of itself on disk: its plan, a mark per unit, its record. Knows no artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.files import hash_file, sha256_of
from storage.names import unit_path


class _Saved(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Saved = TypeVar("Saved", bound=_Saved)


class FileStamp(_Saved):
    """A file as its unit left it. Same size and time: taken as unchanged; another time: hashed again."""

    num_bytes: int
    mtime_ns: int
    sha256: str

    def holds(self, path: Path, *, deep: bool) -> bool:
        """Whether the file is what was written; `deep` reads it even if size and time say so."""
        try:
            now = path.stat()
        except OSError:
            return False
        if now.st_size != self.num_bytes:
            return False
        return (now.st_mtime_ns == self.mtime_ns and not deep) or hash_file(path) == self.sha256


class Mark(_Saved):
    """A unit of an artifact is complete. `facts` are small numbers about it, `seconds` where its time went."""

    unit: str
    inputs: str
    files: dict[str, FileStamp]
    facts: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    peak_bytes: int = 0

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


def mark_path(folder: Path, unit: str) -> Path:
    """Where an artifact's folder keeps the mark of a unit."""
    return folder / "marks" / f"{unit_path(unit)}.json"


def damaged_files(folder: Path, mark: Mark, *, deep: bool = False) -> list[str]:
    """Names of a unit's files below an artifact's folder that are gone or not as they were written."""
    return [name for name, stamp in mark.files.items() if not stamp.holds(folder / name, deep=deep)]


def load_saved(model: type[Saved], path: Path) -> Saved | None:
    """A mark or record as it was written, None where there is none that can be read."""
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
