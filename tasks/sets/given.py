"""A distilled set as its files hold it. Knows no recipe, and nothing of how the files are laid out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.errors import UserError
from storage.files import sha256_of
from storage.names import STATED
from storage.record import hash_once
from storage.sources.pictures import Unreadable, read_picture

MOST_STATED_BYTES = 16 << 20
LABELS, WEIGHTS, LOGITS = ("label", "labels", "target", "targets", "y", "fine_label"), ("weight", "weights"), (
    "logits", "soft_label", "soft_labels",
)  # fmt: skip
MOSTLY = 0.5
MOST_SOFT_GAP = 1e-3  # of a row of probabilities from a sum of 1


class SetError(UserError, ValueError):
    """A distilled set that cannot be read or does not fit; the message names the value and the remedy."""


@dataclass(frozen=True)
class GivenSet:
    """N pictures with their labels.

    path     what was given
    files    all that was read, below path, for the hash of its content
    classes  what the numbers of the labels mean, by name; None where nothing says so
    labels   (N,) int64
    picture  the picture of a row
    weights  (N,) float64 ≥ 0, None where there are none
    logits   (N, C) float32, the set's own soft labels in the order of the classes, None where there are none
    check    looks through all pictures, where that is needed to know that they can be shown. Raises SetError
    """

    path: Path
    files: tuple[Path, ...]
    classes: tuple[str, ...] | None
    labels: NDArray[np.int64]
    picture: Callable[[int], Image.Image]
    weights: NDArray[np.float64] | None = None
    logits: NDArray[np.float32] | None = None
    check: Callable[[], None] = lambda: None

    def content(self) -> str:
        """Hash of the files, by their names within the set."""
        root = self.path if self.path.is_dir() else self.path.parent
        return sha256_of({file.relative_to(root).as_posix(): hash_once(file) for file in sorted(self.files)})


def stated_in(folder: Path) -> dict[str, Any]:
    """What `set.json` of a folder says, nothing where there is none. Raises SetError for one that is no JSON object."""
    path = folder / STATED
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MOST_STATED_BYTES:
            raise ValueError(f"larger than {MOST_STATED_BYTES >> 20} MiB")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SetError(f"{path} cannot be read ({line_of(error)}): mend or remove it") from error
    if not isinstance(found, dict):
        raise SetError(f'{path} holds no JSON object: write it like {{"classes": ["cat", "dog"]}}')
    return found


def names_of(stated: Any, path: Path) -> tuple[str, ...] | None:
    """Names of classes in label order as a file states them. Raises SetError for what are none."""
    if stated is None:
        return None
    names = tuple(stated) if isinstance(stated, list | tuple) else ()
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise SetError(f"{path}: its classes are no list of names, each once: write them in the order of the labels")
    return names


def labels_from(values: NDArray[Any], path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
    """Labels (N,) int64 and, where they are soft, logits (N, C) float32, from numbers (N,), logits or probabilities.

    Raises SetError for what are none of these.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 1:
        numbers = values.astype(np.float64) if values.dtype.kind in "iuf" else np.full(1, np.nan)
        if not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any() or (numbers < 0).any():
            raise SetError(
                f"{path}: its labels are no whole numbers from 0 on: give numbers of classes, or logits (N, C)"
            )
        return numbers.astype(np.int64), None
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise SetError(f"{path}: its labels are of shape {values.shape}: give numbers (N,), or logits (N, C)")
    logits = logits_from(values, path)
    return _classes_of(logits), logits


def _classes_of(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """The classes (N,) of pictures that have soft labels alone: those that these name first; or class after class, as
    DD-Ranking and DATM keep their sets, where that is so for most and not for all."""
    first, (num, num_classes) = logits.argmax(1), logits.shape
    in_turn = np.repeat(np.arange(num_classes), -(-num // num_classes))[:num]
    even = len(set(np.bincount(first, minlength=num_classes))) == 1
    return first if even or num % num_classes or (first == in_turn).mean() < MOSTLY else in_turn


def logits_from(values: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """Logits (N, C) float32 from logits, or from probabilities, whose logarithms they are. Raises SetError."""
    found = np.asarray(values, np.float32)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise SetError(f"{path}: its soft labels are of shape {found.shape} or not all finite: give logits (N, C)")
    if (found >= 0).all() and (abs(found.sum(1) - 1) < MOST_SOFT_GAP).all():
        return np.log(np.maximum(found, 1e-12))
    return found


def weights_from(values: Any, num: int, path: Path) -> NDArray[np.float64]:
    """Weights (N,) float64. Raises SetError for others than finite ones from 0 on, one a picture."""
    found = np.asarray(values, np.float64).ravel()
    if len(found) != num or not np.isfinite(found).all() or (found < 0).any():
        raise SetError(f"{path}: its weights are not {num} finite numbers from 0 on, one for each picture: mend them")
    return found


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes sorted, those that are numbers by what they come to."""
    found = list(names)
    return tuple(sorted(found, key=int if all(name.isascii() and name.isdigit() for name in found) else None))


def named_labels(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Classes, sorted, and the labels (N,) of pictures that have names of classes for labels."""
    classes = in_order(set(names))
    number = {name: k for k, name in enumerate(classes)}
    return classes, np.array([number[name] for name in names], np.int64)


def read_bytes(data: bytes, what: object) -> Image.Image:
    """A picture from a file's bytes. Raises SetError."""
    try:
        return read_picture(data)
    except Unreadable as error:
        raise SetError(f"picture {what} cannot be read ({line_of(error)}): mend or remove it") from error


def files_below(root: Path, paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths, all of them files inside the set. Raises SetError for one that a link leads out by, or no file."""
    inside = root.resolve()
    found = tuple(paths)
    for path in found:
        if not path.resolve().is_relative_to(inside):
            raise SetError(f"{path} is a link that leads out of the set: put the file itself there")
        if not path.is_file():
            raise SetError(f"{path} is no file: remove it")
    return found


def line_of(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
