"""Distilled sets as pictures in class folders, as torchvision's ImageFolder and our export have them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from storage.names import STATED
from storage.sources.listing import is_image_name
from tasks.sets.given import (
    LOGITS,
    GivenSet,
    SetError,
    files_below,
    in_order,
    logits_from,
    names_of,
    read_bytes,
    stated_in,
)

TABLE, SOFT_LABELS = "metadata.csv", f"{LOGITS[-1]}.npy"


def open_folder(path: Path) -> GivenSet:
    """`<path>/<class>/*.png`, or the same below `train`; with metadata.csv, weights, and soft_labels.npy in the order
    of its rows, as `ddoq export --to imagefolder` writes them. Pictures are read when they are asked for."""
    root = path / "train" if (path / "train").is_dir() else path
    there = [folder.name for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    folders = [root / name for name in in_order(there)]
    pictures = [(k, file) for k, folder in enumerate(folders) for file in _pictures(folder)]
    if not pictures:
        raise SetError(
            f"{path} holds no distilled set: give class folders of pictures, a .pt or .npz, a folder of images.pt and "
            "labels.pt, Parquet or Arrow of Hugging Face's, or WebDataset's tars"
        )
    stated = names_of(stated_in(path).get("classes"), path / STATED)
    names = stated if stated and len(stated) == len(folders) else tuple(folder.name for folder in folders)
    files = [file for _, file in pictures]
    more = [at for at in (path / root / TABLE, path / SOFT_LABELS) if at.exists()]
    read = files_below(path, [*files, *more])
    weights, logits = _told(root, path, files)
    return GivenSet(
        path=path,
        files=read,
        classes=names,
        labels=np.array([k for k, _ in pictures], np.int64),
        picture=lambda row: read_bytes(files[row].read_bytes(), files[row]),
        weights=weights,
        logits=logits,
    )


def _pictures(folder: Path) -> Iterator[Path]:
    for at in sorted(folder.iterdir()):
        if is_image_name(at.name):
            yield at


def _told(root: Path, path: Path, files: list[Path]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Weights and logits of the pictures by the table beside them, if there is one."""
    table = root / TABLE
    if not table.exists():
        return None, None
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    at = {row.get("file_name") or "": k for k, row in enumerate(rows)}
    names = [file.relative_to(root).as_posix() for file in files]
    absent = [name for name in names if name not in at]
    if absent:
        raise SetError(f"{table} has no row for {absent[0]}: add it, or remove the table")
    order = [at[name] for name in names]
    weights = logits = None
    if "weight" in rows[0]:
        try:
            weights = np.array([float(rows[k]["weight"]) for k in order])
        except (TypeError, ValueError) as error:
            raise SetError(f"{table}: a weight is no number ({error}): mend it") from error
    if (path / SOFT_LABELS).exists():
        try:
            logits = logits_from(np.load(path / SOFT_LABELS, allow_pickle=False), path / SOFT_LABELS)
        except (OSError, ValueError, EOFError) as error:
            raise SetError(f"{path / SOFT_LABELS} cannot be read ({error}): write it with numpy.save") from error
        if len(logits) != len(rows):
            raise SetError(f"{path / SOFT_LABELS} has {len(logits)} rows, {TABLE} {len(rows)}: make them the same")
        logits = logits[order]
    return weights, logits
