"""What a source lists: where each image lies, of which class and split it is, and what had to be left out."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import UserError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
IMAGE_SUFFIXES_TEXT = " ".join(IMAGE_SUFFIXES)
SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}  # names in sources → ours
WORDNET_ID = re.compile(r"n\d{8}")
BATCH_ROWS = 65_536
MAX_MESSAGE = 300

IMAGES = pa.schema(
    [
        ("class", pa.string()),
        ("split", pa.string()),
        ("path", pa.string()),
        ("member", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)
REFUSED = pa.schema([("path", pa.string()), ("class", pa.string()), ("split", pa.string()), ("reason", pa.string())])


class SourceError(UserError, ValueError):
    """A source is missing or not laid out as expected; the message names the value and the remedy."""


class RefusedImage(SourceError):
    """An image that cannot be shown: `path` says which, `reason` why."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, one_line(reason)
        super().__init__(self.path, self.reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def one_line(message: object) -> str:
    """An error of a library as a part of our own message: some hold line breaks, or all of the bytes in question."""
    text = " ".join(str(message).split())
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}…"


class Location(NamedTuple):
    """Where an image's bytes lie.

    path    the file, relative to the source's folder, or absolute where it lies elsewhere
    offset  first byte in the file (of a gzipped archive, in the plain one); the row of a parquet file or an array
    length  bytes, −1 where only reading tells
    member  name inside the file, for people; "" for a file of its own
    """

    path: str
    offset: int
    length: int
    member: str = ""

    @property
    def name(self) -> str:
        """The image for people: its path, and its name in there."""
        return f"{self.path}: {self.member}" if self.member else self.path


@dataclass(frozen=True)
class Listing:
    """Images by column (schema IMAGES), and files that cannot be read as images (schema REFUSED).

    A split is "train" or "val", or "" for all images of a source that leaves splitting to us.
    """

    images: pa.Table
    refused: pa.Table

    def of_classes(self, names: Iterable[str]) -> Listing:
        """The part of some classes; what was refused is taken with it by class as well."""
        wanted = pa.array(list(names), pa.string())
        images, refused = (t.filter(pc.is_in(t["class"], wanted)) for t in (self.images, self.refused))
        return Listing(images, refused)


def locations(images: pa.Table) -> Iterator[Location]:
    """Where images lie, in their order."""
    columns = [images[name].to_pylist() for name in Location._fields]
    return (Location(*values) for values in zip(*columns, strict=True))


class ListingBuilder:
    """Gathers a listing of millions of images in columns, a batch of Python objects at a time."""

    def __init__(self) -> None:
        self._images = TableBuilder(IMAGES)
        self._refused = TableBuilder(REFUSED)
        self._cleaned: dict[str, str] = {}

    def add(self, class_name: str, split: str, at: Location) -> None:
        """List an image, or refuse it for a name that is no UTF-8. Raises SourceError for an impossible class name."""
        if not _is_utf8(class_name + at.path + at.member):
            self.refuse(class_name, split, at.name, "the name is not valid UTF-8: rename it")
            return
        if class_name not in self._cleaned:
            self._cleaned[class_name] = self._free(clean_class_name(class_name), class_name)
        self._images.add(self._cleaned[class_name], split, at.path, at.member, at.offset, at.length)

    def _free(self, cleaned: str, name: str) -> str:
        if cleaned in self._cleaned.values():
            raise SourceError(f"class {name!r} and another one would both be called {cleaned!r}: rename one of them")
        return cleaned

    def refuse(self, class_name: str, split: str, path: str, reason: str) -> None:
        """List what cannot be an image of the data set."""
        self._refused.add(_printable(path), _printable(class_name), split, reason)

    def finish(self) -> Listing:
        """All that was added. Images of a split "test" stand in for "val" where there is none, else they are left."""
        images, refused = self._images.finish(), self._refused.finish()
        has_val = pc.any(pc.equal(images["split"], "val")).as_py()
        return Listing(*(_settle_test(table, has_val) for table in (images, refused)))


class TableBuilder:
    """Rows in, a table out; rows wait as Python objects for one batch only."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._rows: list[tuple[object, ...]] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, *row: object) -> None:
        """Append a row, in the schema's order."""
        self._rows.append(row)
        if len(self._rows) == BATCH_ROWS:
            self._flush()

    def finish(self) -> pa.Table:
        """All rows."""
        self._flush()
        return pa.Table.from_batches(self._batches, self.schema)

    def _flush(self) -> None:
        if self._rows:
            columns = [list(column) for column in zip(*self._rows, strict=True)]
            self._batches.append(pa.record_batch(columns, schema=self.schema))
            self._rows = []


def _settle_test(table: pa.Table, has_val: bool | None) -> pa.Table:
    is_test = pc.equal(table["split"], "test")
    if has_val:
        return table.filter(pc.invert(is_test))
    split = pc.if_else(is_test, "val", table["split"])
    return table.set_column(table.schema.get_field_index("split"), "split", split)


def clean_class_name(name: str) -> str:
    """A class's name as a group of a zarr store, with "/" replaced. Raises SourceError for one that cannot be."""
    if "\0" in name:
        raise SourceError(f"class {reprlib.repr(name)} has a NUL in it, which no file's name can: rename it")
    cleaned = name.replace("/", "-")
    if cleaned.startswith("__") or not cleaned.strip("."):
        raise SourceError(f"class {name!r} starts with '__' or is empty, which a zarr store cannot hold: rename it")
    return cleaned


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order of their labels: as numbers if all are integers, else as strings (so WordNet ids in order)."""
    distinct = set(names)
    numbers = all(re.fullmatch(r"-?[0-9]+", name) for name in distinct)
    return tuple(sorted(distinct, key=lambda name: (int(name), name) if numbers else (0, name)))


def is_image_name(name: str) -> bool:
    """Whether a file is taken for an image; hidden ones are not."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # half a character of UTF-16, which JSON may hold
        return text.encode(errors="backslashreplace").decode()
