"""Distilled sets as Hugging Face's datasets keeps them: Parquet of a hub folder, or Arrow of save_to_disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from PIL import Image

from storage.names import STATED
from tasks.sets.given import (
    LABELS,
    LOGITS,
    WEIGHTS,
    GivenSet,
    SetError,
    files_below,
    labels_from,
    line_of,
    logits_from,
    named_labels,
    names_of,
    read_bytes,
    stated_in,
    weights_from,
)

IMAGES = ("image", "img", "images")
INFO, CARD = "dataset_info.json", "README.md"
KEPT_PARTS = 4  # row groups of pictures in memory


def table_files(path: Path) -> list[Path]:
    """The Parquet or Arrow files of a folder, of its split train where it has several; none where it is no such."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    if not path.is_dir():
        return []
    if (path / "dataset_dict.json").is_file():
        return table_files(path / "train")
    found = sorted(path.glob("data/*.parquet")) or sorted(path.glob("*.parquet")) or sorted(path.glob("*.arrow"))
    return [file for file in found if file.name.startswith("train")] or found


def open_tables(path: Path, files: list[Path]) -> GivenSet:
    """A set of Parquet or Arrow files; pictures are read when they are asked for."""
    folder = files[0].parent
    try:
        parts = [part for file in files for part in _parts(file)]
        schema = _schema(files[0])
        small = pa.concat_tables([part.read(_small(schema)) for part in parts]).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise SetError(f"{files[0]} cannot be read ({line_of(error)}): save the set again") from error
    image, label = (_one_of(schema, names, files[0]) for names in (IMAGES, LABELS))
    stated = stated_in(path if path.is_dir() else folder)
    names = names_of(stated.get("classes") or _class_names(schema, label, folder, path), files[0])
    values, logits = small[label].to_pylist(), None
    if any(value is None for value in values):
        raise SetError(f"{files[0]}: a picture has no label: give it one, or remove it")
    if values and isinstance(values[0], str):
        names, labels = named_labels(values)
    else:
        labels, logits = labels_from(_array(values, files[0]), files[0])
    soft, weight = (next((name for name in names_ if name in schema.names), None) for names_ in (LOGITS, WEIGHTS))
    if soft:
        logits = logits_from(_rows(small[soft].combine_chunks(), files[0]), files[0])
    ends = np.cumsum([part.num_rows for part in parts])
    read = lru_cache(maxsize=KEPT_PARTS)(lambda k: parts[k].read([image])[image])

    def picture(row: int) -> Image.Image:
        k = int(np.searchsorted(ends, row, side="right"))
        held = read(k)[row - int(ends[k] - parts[k].num_rows)].as_py()
        data = held.get("bytes") if isinstance(held, Mapping) else held
        if not isinstance(data, bytes):
            raise SetError(f"{files[0]}: picture {row} lies elsewhere, not in the file: save the set with its pictures")
        return read_bytes(data, f"{row} of {path}")

    beside = [at for at in (path / STATED, folder / INFO) if at.is_file()]
    card = [path / CARD] if names and (path / CARD).is_file() else []
    root = path if path.is_dir() else folder
    return GivenSet(
        path=path,
        files=files_below(root, [*files, *beside, *card]),
        classes=names,
        labels=labels,
        picture=picture,
        weights=weights_from(small[weight].to_pylist(), len(labels), files[0]) if weight else None,
        logits=logits,
    )


class _Part:
    """Rows of a file that are read together."""

    def __init__(self, file: Path, group: int | None, num_rows: int) -> None:
        self.file, self.group, self.num_rows = file, group, num_rows

    def read(self, columns: list[str]) -> pa.Table:
        if self.group is None:
            return _arrow(self.file).select(columns)
        file: Any = pq.ParquetFile(self.file)
        return file.read_row_group(self.group, columns)


def _parts(file: Path) -> list[_Part]:
    if file.suffix == ".arrow":
        return [_Part(file, None, _arrow(file).num_rows)]
    metadata = pq.ParquetFile(file).metadata
    return [_Part(file, k, metadata.row_group(k).num_rows) for k in range(metadata.num_row_groups)]


def _arrow(file: Path) -> pa.Table:
    """Mapped from its file, not read."""
    return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()


def _schema(file: Path) -> pa.Schema:
    return _arrow(file).schema if file.suffix == ".arrow" else pq.read_schema(file)


def _small(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name in (*LABELS, *WEIGHTS, *LOGITS)]


def _one_of(schema: pa.Schema, names: tuple[str, ...], file: Path) -> str:
    found = next((name for name in names if name in schema.names), None)
    if found is None:
        raise SetError(f"{file} has the columns {', '.join(schema.names[:8])}: call one {names[0]!r}")
    return found


def _array(values: list[Any], file: Path) -> NDArray[Any]:
    try:
        return np.array(values)
    except ValueError as error:
        raise SetError(f"{file}: rows of several lengths ({line_of(error)}): give one number a class") from error


def _rows(column: Any, file: Path) -> NDArray[Any]:
    """Lists of numbers as rows (N, C), without a Python object for each."""
    lengths = set(column.value_lengths().to_pylist())
    if len(lengths) != 1 or None in lengths:
        raise SetError(f"{file}: soft labels of several lengths: give one number a class")
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), -1)


def _class_names(schema: pa.Schema, label: str, folder: Path, path: Path) -> Any:
    """The names of a ClassLabel: in the schema's metadata, in dataset_info.json, or in the card."""
    in_schema = (schema.metadata or {}).get(b"huggingface", b"{}")
    beside = (folder / INFO).read_bytes() if (folder / INFO).is_file() else b"{}"
    for told in (in_schema, beside):
        try:
            info = json.loads(told)
            return info.get("info", info)["features"][label]["names"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return _names_in_card(path / CARD, label)


def _names_in_card(card: Path, label: str) -> Any:
    try:
        front = yaml.safe_load(card.read_text().split("---")[1])
        features = {feature["name"]: feature["dtype"] for feature in front["dataset_info"]["features"]}
        names = features[label]["class_label"]["names"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, yaml.YAMLError, RecursionError):
        return None
    return [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names
