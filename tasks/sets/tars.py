"""Distilled sets as WebDataset's tars: the files of a sample share a name up to the first dot."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from storage.names import STATED
from tasks.sets.given import (
    LABELS,
    WEIGHTS,
    GivenSet,
    SetError,
    files_below,
    logits_from,
    named_labels,
    names_of,
    read_bytes,
    stated_in,
    weights_from,
)

IMAGES = ("png", "jpg", "jpeg", "webp")
MOST_TOLD_BYTES = 16 << 20  # of a sample's label, facts or logits


def tar_files(path: Path) -> list[Path]:
    """The tars of a folder, or the one that is given."""
    if path.is_file():
        return [path] if path.suffix == ".tar" else []
    return sorted(path.glob("*.tar")) if path.is_dir() else []


def open_tars(path: Path, files: list[Path]) -> GivenSet:
    """A set of tars with .png, .cls or .json, and .logits.npy of each picture; pictures are read when asked for."""
    samples: dict[tuple[Path, str], dict[str, Any]] = {}
    for file in files:
        try:
            with tarfile.open(file, "r:") as tar:
                for member in tar:
                    if member.isfile():
                        key, _, kind = member.name.rpartition("/")[2].partition(".")
                        sample = samples.setdefault((file, f"{member.name.rpartition('/')[0]}/{key}"), {})
                        sample[kind.lower()] = _held(file, tar, member, kind.lower())
        except (OSError, tarfile.TarError, EOFError) as error:
            raise SetError(f"{file} cannot be read ({error}): give tars that are not compressed") from error
    rows = [(file, sample) for (file, _), sample in samples.items() if any(kind in sample for kind in IMAGES)]
    told = [_facts(file, sample) for file, sample in rows]
    if not rows:
        raise SetError(f"{path} holds tars without pictures: give samples of .png and .cls")
    folder = path if path.is_dir() else path.parent
    names = names_of(stated_in(folder).get("classes"), folder / STATED)
    labels = [facts["label"] for facts in told]
    if all(isinstance(label, int) for label in labels):
        numbers = np.array(labels, np.int64)
    else:
        names, numbers = named_labels([str(label) for label in labels])
    weights = [facts["weight"] for facts in told]
    logits = [sample["logits.npy"] for _, sample in rows if "logits.npy" in sample]

    def picture(row: int) -> Any:
        file, sample = rows[row]
        offset, size = next(sample[kind] for kind in IMAGES if kind in sample)
        with file.open("rb") as opened:
            opened.seek(offset)
            return read_bytes(opened.read(size), f"{row} of {file}")

    return GivenSet(
        path=path,
        files=files_below(folder, [*files, *([folder / STATED] if (folder / STATED).is_file() else [])]),
        classes=names,
        labels=numbers,
        picture=picture,
        weights=None if None in weights else weights_from(weights, len(rows), path),
        logits=logits_from(np.array(logits), path) if len(logits) == len(rows) else None,
    )


def _held(file: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, kind: str) -> Any:
    """Of a picture where it lies, (offset, bytes); of what is told of it what it says."""
    if kind in IMAGES:
        return member.offset_data, member.size
    if kind not in ("cls", "json", "logits.npy"):
        return None
    if member.size > MOST_TOLD_BYTES:
        raise SetError(f"{file}: {member.name} has {member.size:,} bytes, which is no label: remove it")
    opened = tar.extractfile(member)
    assert opened is not None, "a file"
    data = opened.read()
    try:
        if kind == "logits.npy":
            return np.load(io.BytesIO(data), allow_pickle=False)
        return json.loads(data) if kind == "json" else data.decode().strip()
    except (ValueError, EOFError, RecursionError) as error:
        raise SetError(f"{file}: {member.name} cannot be read ({error}): mend it") from error


def _facts(file: Path, sample: dict[str, Any]) -> dict[str, Any]:
    """Label and weight of a sample."""
    held = sample.get("json")
    facts = held if isinstance(held, dict) else {}
    label = sample.get("cls", next((facts[key] for key in (*LABELS, "cls", "class") if key in facts), None))
    if label is None:
        raise SetError(f"{file}: a picture has no .cls, and no .json with a label: give it one")
    number = int(label) if isinstance(label, str) and label.isascii() and label.isdigit() else label
    return {"label": number, "weight": next((facts[key] for key in WEIGHTS if key in facts), None)}
