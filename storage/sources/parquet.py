"""Parquet files as Hugging Face writes image data sets: a column of encoded images and one of labels.

An image is addressed by its row, and its row group is read to get it, so neighbours in a file are cheap to read
together; a class that is scattered over a file costs a read of the whole file.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.sources.base import FileSource, Place, split_in, stat_hash
from storage.sources.listing import ListingBuilder, Location, RefusedImage, SourceError
from storage.sources.pictures import PILLOW_MAX_PIXELS
from storage.sources.places import named_files

LABEL_NAMES = ("label", "labels", "class", "cls")
ROW_GROUPS = 4  # kept in memory between reads, by each process


class ParquetSource(FileSource):
    """Images as struct<bytes, path> or binary, labels as class names or as integers that the metadata may name.

    The split is that of the file's name (train-00000-of-00294.parquet) unless `val_path` is given.
    """

    layout = "in the parquet files"

    def __init__(self, path: Path, val_path: Path | None = None, *, max_pixels: int = PILLOW_MAX_PIXELS) -> None:
        super().__init__(path, val_path, max_pixels=max_pixels)
        self._files = {place: named_files(place.path, (".parquet",)) for place in self.places}
        self._table = lru_cache(64)(_Table)
        self._cells = lru_cache(ROW_GROUPS)(lambda path, group: self._table(path).images(group))
        self._lock = Lock()  # a parquet reader serves one thread

    def fingerprint(self) -> str:
        return stat_hash([file for files in self._files.values() for file in files])

    def list_place(self, place: Place, builder: ListingBuilder) -> None:
        for file in self._files[place]:
            path, split = self.path_of(file), split_in(place, file.name.split("-")[0].split(".")[0])
            if split is None:
                continue
            for row, label in enumerate(_Table(str(file)).labels()):
                at = Location(path, row, -1, f"row {row}")
                if label is None:
                    builder.refuse("", split, at.name, "no label")
                else:
                    builder.add(label, split, at)

    def read(self, location: Location) -> bytes:
        path, row = str(self.file_of(location.path)), location.offset
        try:
            with self._lock:
                group = bisect_right(self._table(path).starts, row) - 1
                cell = self._cells(path, group)[row - self._table(path).starts[group]]
        except (OSError, pa.ArrowException, IndexError) as error:
            raise RefusedImage(location.name, str(error)) from error
        data = cell["bytes"].as_py() if isinstance(cell, pa.StructScalar) and cell.is_valid else cell.as_py()
        if not data:
            raise RefusedImage(location.name, "no bytes")
        return bytes(data)


class _Table:
    """One parquet file: its two columns, and where its row groups start."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False)
        except pa.ArrowInvalid as error:
            raise SourceError(f"{path} is no whole parquet file ({error}): fetch it again") from error
        meta = self._file.metadata
        self.starts = [0, *accumulate(meta.row_group(g).num_rows for g in range(meta.num_row_groups))]
        self._schema = self._file.schema_arrow
        described = json.loads((self._schema.metadata or {}).get(b"huggingface", b"{}"))
        self._features: dict[str, Any] = described.get("info", {}).get("features", {})

    def labels(self) -> list[str | None]:
        """The class name of each row."""
        column = self._label_column()
        names = self._features.get(column, {}).get("names")
        values = self._file.read(columns=[column])[column].to_pylist()
        known = dict(enumerate(names)) if names else {}
        return [None if value in (None, -1) else str(known.get(value, value)) for value in values]

    def images(self, group: int) -> pa.ChunkedArray:
        """The image column of a row group, of a struct its bytes alone."""
        column = self._image_column()
        is_struct = pa.types.is_struct(self._schema.field(column).type)
        return self._file.read_row_group(group, columns=[f"{column}.bytes" if is_struct else column])[column]

    def _image_column(self) -> str:
        return self._choose("image", "Image", ("image", "img"), _holds_images)

    def _label_column(self) -> str:
        return self._choose("label", "ClassLabel", LABEL_NAMES, lambda kind: False)

    def _choose(self, what: str, feature: str, names: tuple[str, ...], fits: Any) -> str:
        """By its usual name, else as the metadata says, else by its type."""
        columns = self._schema.names
        named = [n for n in names if n in columns]
        described = [n for n in columns if self._features.get(n, {}).get("_type") == feature]
        typed = [n for n in columns if fits(self._schema.field(n).type)]
        found = [*named, *described, *typed]
        if not found:
            raise SourceError(f"{self.path} has no {what} column among {', '.join(columns)}: call it {names[0]!r}")
        return found[0]


def _holds_images(kind: pa.DataType) -> bool:
    is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return is_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
