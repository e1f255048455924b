"""Parquet files as Hugging Face writes image data sets: a column of encoded images and one of labels.

An image is addressed by its row, and its row group is read to get it, so neighbours in a file are cheap to read
together; a class that is scattered over a file costs a read of the whole file.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.sources.base import Place, split_in
from storage.sources.listing import ListingBuilder, Location, RefusedImage, SourceError, one_line
from storage.sources.pictures import PILLOW_MAX_PIXELS
from storage.sources.remote import Address, AsFile
from storage.sources.scans import ArchiveSource

LABEL_NAMES = ("label", "labels", "class", "cls")
ROW_GROUPS = 4  # kept in memory between reads, by each process


class ParquetSource(ArchiveSource):
    """Images as struct<bytes, path> or binary, labels as class names or as integers that the metadata may name.

    The split is that of the file's name (train-00000-of-00294.parquet) unless `val_path` is given.
    """

    layout = "in the parquet files"
    suffixes = (".parquet",)

    def __init__(
        self,
        path: Path | Address,
        val_path: Path | Address | None = None,
        *,
        scanned: Path | None = None,
        max_pixels: int = PILLOW_MAX_PIXELS,
    ) -> None:
        super().__init__(path, val_path, max_pixels=max_pixels)
        self.scanned = scanned
        self._table = lru_cache(64)(_Table)
        self._cells = lru_cache(ROW_GROUPS)(lambda path, group: self._table(path).images(group))
        self._lock = Lock()  # a parquet reader serves one thread

    def list_archive(self, place: Place, path: str, builder: ListingBuilder) -> None:
        file = self.file_of(path)
        if (split := split_in(place, file.name.split("-")[0].split(".")[0])) is None:
            return
        for row, label in enumerate(_Table(file).labels()):
            at = Location(path, row, -1, f"row {row}")
            if isinstance(label, RefusedImage):
                builder.refuse("", split, at.name, label.reason)
            else:
                builder.add(label, split, at)

    def read(self, location: Location) -> bytes:
        path, row = self.file_of(location.path), location.offset
        try:
            with self._lock:
                group = bisect_right(self._table(path).starts, row) - 1
                cell = self._cells(path, group)[row - self._table(path).starts[group]]
        except (OSError, pa.ArrowException, LookupError) as error:
            raise RefusedImage(location.name, str(error)) from error
        data = cell["bytes"].as_py() if isinstance(cell, pa.StructScalar) and cell.is_valid else cell.as_py()
        if not data:
            raise RefusedImage(location.name, "no bytes")
        return bytes(data)


class _Table:
    """One parquet file: its two columns, and where its row groups start. Raises SourceError where it is none."""

    def __init__(self, path: Path | Address) -> None:
        self.path = path
        with _whole(path):
            self._file = pq.ParquetFile(AsFile(path) if isinstance(path, Address) else path, pre_buffer=False)
        meta = self._file.metadata
        self.starts = [0, *accumulate(meta.row_group(g).num_rows for g in range(meta.num_row_groups))]
        self._schema = self._file.schema_arrow
        self._features = self._described()
        self.image_column = self._choose("image", "Image", ("image", "img"), _holds_images)
        self.label_column = self._choose("label", "ClassLabel", LABEL_NAMES, lambda kind: False)
        self._check_type(self.image_column, _holds_images, "binary, or struct<bytes: binary, path: string>")
        self._check_type(self.label_column, _holds_labels, "integers or strings")

    def labels(self) -> list[str | RefusedImage]:
        """The class name of each row, or why it has none."""
        with _whole(self.path):
            values = self._file.read(columns=[self.label_column])[self.label_column].to_pylist()
        names = self._features.get(self.label_column, {}).get("names")
        return [_class_of(value, names) for value in values]

    def images(self, group: int) -> pa.ChunkedArray:
        """The image column of a row group, of a struct its bytes alone."""
        column = self.image_column
        is_struct = pa.types.is_struct(self._schema.field(column).type)
        return self._file.read_row_group(group, columns=[f"{column}.bytes" if is_struct else column])[column]

    def _described(self) -> dict[str, Any]:
        """What Hugging Face's metadata says of each column."""
        try:
            described = json.loads((self._schema.metadata or {}).get(b"huggingface", b"{}"))
            features = described.get("info", {}).get("features", {})
            found = {column: dict(feature) for column, feature in features.items() if isinstance(feature, dict)}
            if not all(isinstance(feature.get("names") or [], list) for feature in found.values()):
                raise ValueError("names that are no list")
            return found
        except (ValueError, AttributeError, RecursionError) as error:
            raise SourceError(
                f"{self.path}: its huggingface metadata cannot be understood ({one_line(error)}): write the file anew, "
                "or without"
            ) from error

    def _choose(self, what: str, feature: str, names: tuple[str, ...], fits: Callable[[pa.DataType], bool]) -> str:
        """By its usual name, else as the metadata says, else by its type."""
        columns = self._schema.names
        named = [n for n in names if n in columns]
        described = [n for n in columns if self._features.get(n, {}).get("_type") == feature]
        typed = [field.name for field in self._schema if fits(field.type)]
        found = [*named, *described, *typed]
        if not found:
            raise SourceError(f"{self.path} has no {what} column among {', '.join(columns)}: call it {names[0]!r}")
        if columns.count(found[0]) > 1:
            raise SourceError(f"{self.path} has several columns {found[0]!r}: keep the one of the {what}s")
        return found[0]

    def _check_type(self, column: str, fits: Callable[[pa.DataType], bool], needed: str) -> None:
        kind = self._schema.field(column).type
        if not fits(kind):
            raise SourceError(f"{self.path}: column {column!r} holds {kind}: write it as {needed}")


@contextmanager
def _whole(path: Path | Address) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, pa.ArrowException) as error:
        raise SourceError(f"{path} is no whole parquet file ({one_line(error)}): fetch it again") from error


def _class_of(label: object, names: list[object] | None) -> str | RefusedImage:
    """A label as a class name: an integer is a position among the names, if there are any."""
    if label is None or label == -1:
        return RefusedImage("", "no label")
    if not isinstance(label, int) or isinstance(label, bool):
        return str(label)
    if label < 0:
        return RefusedImage("", f"its label {label} is negative")
    if names and label >= len(names):
        return RefusedImage("", f"its label {label} is none of the {len(names)} names in the metadata")
    return str(names[label]) if names else str(label)


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_labels(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    types = pa.types
    return any(fits(kind) for fits in (types.is_integer, types.is_string, types.is_large_string, types.is_boolean))
