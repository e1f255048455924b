"""`index.parquet`: one row per image of a data set. Its content is the data set's identity."""

from __future__ import annotations

import hashlib
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
from storage.sources import Item

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("class", pa.string()),
        ("label", pa.int32()),
        ("split", pa.string()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("hash", pa.string()),
    ]
)


@dataclass(frozen=True)
class Index:
    """The images of a data set. `row` is a position in the table; labels follow the sorted class names."""

    table: pa.Table

    @classmethod
    def build(cls, items: list[Item], splits: Iterable[str], hashes: Iterable[str]) -> Index:
        """From the images of a source, the split of each and the hash of its bytes."""
        names = sorted({item.class_name for item in items})
        label = {name: k for k, name in enumerate(names)}
        columns = {
            "row": np.arange(len(items)),
            "class": [item.class_name for item in items],
            "label": [label[item.class_name] for item in items],
            "split": list(splits),
            "path": [item.path for item in items],
            "offset": np.zeros(len(items), np.int64),
            "length": [item.length for item in items],
            "hash": list(hashes),
        }
        return cls(pa.table(columns, schema=SCHEMA))

    @classmethod
    def read(cls, folder: Path) -> Index:
        """From the folder of a shard artifact."""
        return cls(pq.read_table(folder / "index.parquet", schema=SCHEMA))

    def write(self, folder: Path) -> None:
        """To the folder of a shard artifact."""
        pq.write_table(self.table, folder / "index.parquet", compression="zstd")

    @cached_property
    def identity(self) -> str:
        """12 hex digits that depend on the images' bytes, classes, splits and order, not on where they lie."""
        columns = [self.table[name].to_pylist() for name in ("class", "split", "hash")]
        return sha256_of([hashlib.sha256("\n".join(column).encode()).hexdigest() for column in columns])[:12]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class's label is its position."""
        return tuple(sorted(self.table["class"].unique().to_pylist()))

    def rows(self, split: str, class_name: str | None = None) -> NDArray[np.int64]:
        """Rows of a split, or of one of its classes, ascending."""
        if class_name is None:
            return np.flatnonzero(self._is_split(split))
        return self._rows_by_class(split)[self.classes.index(class_name)]

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels (n,) of rows."""
        return self._labels[rows]

    def paths(self, rows: NDArray[np.int64]) -> list[str]:
        """Paths of rows, as the source knows them."""
        return self.table["path"].take(pa.array(rows)).to_pylist()

    def hashes(self, rows: NDArray[np.int64]) -> list[str]:
        """Content hashes of rows."""
        return self.table["hash"].take(pa.array(rows)).to_pylist()

    def counts(self, split: str) -> dict[str, int]:
        """Images per class of a split, 0 where it has none."""
        counts = np.bincount(self._labels[self.rows(split)], minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        return np.asarray(self.table["label"].to_numpy()).astype(np.int64)

    def _is_split(self, split: str) -> NDArray[np.bool_]:
        return np.asarray(pc.equal(self.table["split"], split).to_numpy())

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
