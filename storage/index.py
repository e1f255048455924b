"""`index.parquet`: one row per image of a data set. Its content is the data set's identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.files import sha256_of
from storage.sources.listing import BATCH_ROWS, Location, class_order, locations

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("class", pa.string()),
        ("label", pa.int32()),
        ("split", pa.string()),
        ("path", pa.string()),
        ("member", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("hash", pa.string()),
    ]
)
INDEX = "index"  # the folder of a shard artifact that holds it
CLASSES = b"classes"  # in the table's metadata: the class names in the order of their labels, as JSON


@dataclass(frozen=True)
class Index:
    """The images of a data set. `row` is a position in the table; labels follow `class_order`."""

    table: pa.Table

    @classmethod
    def build(cls, images: pa.Table, hashes: pa.ChunkedArray, classes: Iterable[str]) -> Index:
        """From listed images (storage.sources.listing.IMAGES), the hash of each, and the names of all classes.

        A class is in the index even if none of its images is.
        """
        names = class_order(classes)
        labels = pc.index_in(images["class"], pa.array(names, pa.string()))
        columns = {name: images[name] for name in images.schema.names}
        columns |= {"row": pa.array(np.arange(len(images))), "label": labels, "hash": hashes}
        schema = SCHEMA.with_metadata({CLASSES: json.dumps(names)})
        return cls(pa.table({name: columns[name] for name in SCHEMA.names}, schema=schema).combine_chunks())

    @classmethod
    def read(cls, folder: Path) -> Index:
        """From the folder of a shard artifact."""
        return cls(pq.read_table(folder / "index.parquet").combine_chunks())

    def write(self, folder: Path) -> None:
        """To the folder of a shard artifact."""
        pq.write_table(self.table, folder / "index.parquet", compression="zstd")

    @cached_property
    def identity(self) -> str:
        """12 hex digits that depend on the images' bytes, classes, splits and order, not on where they lie."""
        return sha256_of([self._hash_column(name) for name in ("class", "split", "hash")])[:12]

    def _hash_column(self, name: str) -> str:
        """Hex sha256 of a column's values with a line break between them."""
        found, separator = hashlib.sha256(), ""
        for batch in self.table.select([name]).to_batches(BATCH_ROWS):
            found.update((separator + "\n".join(batch[0].to_pylist())).encode())
            separator = "\n"
        return found.hexdigest()

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class's label is its position."""
        return tuple(json.loads(self.table.schema.metadata[CLASSES]))

    @cached_property
    def _label_of(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.classes)}

    def rows(self, split: str, class_name: str | None = None) -> NDArray[np.int64]:
        """Rows of a split, or of one of its classes, ascending."""
        if class_name is None:
            return np.flatnonzero(self._is_split(split))
        return self._rows_by_class(split)[self._label_of[class_name]]

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels (n,) of rows."""
        return self._labels[rows]

    def locations(self, rows: NDArray[np.int64]) -> list[Location]:
        """Where the images of rows lie, for the source that they were listed by."""
        return list(locations(self.table.select(Location._fields).take(pa.array(rows))))

    def hashes(self, rows: NDArray[np.int64]) -> list[str]:
        """Content hashes of rows."""
        return self.table["hash"].take(pa.array(rows)).to_pylist()

    def counts(self, split: str) -> dict[str, int]:
        """Images per class of a split, 0 where it has none."""
        if split not in self._counted:
            counts = np.bincount(self._labels[self.rows(split)], minlength=len(self.classes))
            self._counted[split] = dict(zip(self.classes, counts.tolist(), strict=True))
        return self._counted[split].copy()

    def duplicates(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """The same bytes twice: validation rows (n,) that are in training too, a training row (n,) of each, and how
        many training images repeat another one."""
        train, val = self.rows("train"), self.rows("val")
        codes = np.asarray(self.table["hash"].combine_chunks().dictionary_encode().indices)  # equal for equal hashes
        first = np.full(len(codes), -1)
        first[codes[train[::-1]]] = train[::-1]  # by code, its first place in training
        twins = first[codes[val]]
        return val[twins >= 0], twins[twins >= 0], len(train) - int(np.count_nonzero(first >= 0))

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        return np.asarray(self.table["label"].to_numpy()).astype(np.int64)

    def _is_split(self, split: str) -> NDArray[np.bool_]:
        return np.asarray(pc.equal(self.table["split"], split).to_numpy())

    @cached_property
    def _counted(self) -> dict[str, dict[str, int]]:
        return {}

    @cached_property
    def _grouped(self) -> dict[str, list[NDArray[np.int64]]]:
        return {}

    def _rows_by_class(self, split: str) -> list[NDArray[np.int64]]:
        """Rows of each class of a split, ascending; found once, as a data set may have a thousand classes."""
        if split not in self._grouped:
            rows = self.rows(split)
            order = np.argsort(self._labels[rows], kind="stable")
            ends = np.cumsum(list(self.counts(split).values()))[:-1]
            self._grouped[split] = np.split(rows[order], ends)
        return self._grouped[split]
