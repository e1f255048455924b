"""Weights that a recipe names: where they are, what identifies them, and whether they are still as they were noted.

A stage that takes such weights keeps the stamp of each of their files among the facts of its mark, so that every run
compares size and time, and content where these differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storage.artifact import Artifact
from storage.errors import UserError
from storage.files import hash_file, list_files
from storage.record import FileStamp

MODEL = "model"  # the only unit of a model's artifact
GIVEN = "given"  # among the facts of its mark
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".json", ".txt")


class WeightsError(UserError, ValueError):
    """Weights are missing or do not fit; the message names them and the remedy."""


def local_weights(weights: str) -> Path | None:
    """The folder or file of weights that are on this machine, None for a hub name.

    Raises WeightsError for something that looks like a path and is not there.
    """
    path = Path(weights).expanduser()
    if path.exists():
        return path
    if weights.startswith(("/", ".", "~")) or weights.count("/") != 1 or path.parent.is_dir():
        raise WeightsError(f"weights {weights!r}: no such folder; give a diffusers folder or a hub name OWNER/NAME")
    return None


def stamp_weights(weights: str, subfolder: str | None = None) -> dict[str, FileStamp]:
    """The files of weights on this machine by name, each as it is now; none for a hub name. Raises WeightsError."""
    return {name: FileStamp.of(path) for name, path in _files(weights, subfolder).items()}


def identity_of(weights: str, stamps: dict[str, FileStamp]) -> dict[str, Any]:
    """What identifies weights: the hashes of their files, else the hub name."""
    return {"weights": weights, "files": {name: stamp.sha256 for name, stamp in stamps.items()}}


def facts_of(stamps: dict[str, FileStamp]) -> dict[str, Any]:
    """What a mark keeps of weights, for `expect_weights`."""
    return {GIVEN: {name: stamp.model_dump() for name, stamp in stamps.items()}}


def expect_weights(artifact: Artifact, weights: str | None, subfolder: str | None = None) -> None:
    """Let an artifact that was made with weights on this machine count as not done if they are not as they were.

    Raises WeightsError where they are gone.
    """
    mark = artifact.mark(MODEL)
    if weights is None or mark is None:
        return
    noted = {name: FileStamp.model_validate(stamp) for name, stamp in mark.facts.get(GIVEN, {}).items()}
    files = _files(weights, subfolder)
    if noted and not files:
        raise WeightsError(f"weights {weights!r} are gone, of which {artifact} was made: put them back or give others")
    if files.keys() != noted.keys() or not all(noted[name].holds(path, deep=False) for name, path in files.items()):
        artifact.drop_mark(MODEL)


def check_unchanged(artifact: Artifact, told: dict[str, Any]) -> None:
    """Read weights elsewhere, and compare them with what the artifact says of them.

    Raises WeightsError where they are not as they were; the artifact then counts as not done.
    """
    files = _files(told["weights"], told.get("subfolder"))
    for name, sha256 in told["files"].items():
        if name not in files or hash_file(files[name]) != sha256:
            artifact.drop_mark(MODEL)
            raise WeightsError(
                f"weights {told['weights']!r}: {name} is not as it was when {artifact} was made: run the same command "
                "again to use it as it is, or put the old one back"
            )


def _files(weights: str, subfolder: str | None) -> dict[str, Path]:
    place = local_weights(weights)
    if place is None:
        return {}
    if place.is_file():
        return {place.name: place}
    below = place / (subfolder or "")
    return {f.relative_to(place).as_posix(): f for f in list_files(below) if f.suffix in WEIGHT_SUFFIXES}
