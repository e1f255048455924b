"""`index.parquet`: one row per image of a data set. Its content is the data set's identity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
        columns = self.table.select(["class", "split", "hash"]).to_pydict()
        return sha256_of(columns)[:12]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class's label is its position."""
        return tuple(sorted(self.table["class"].unique().to_pylist()))

    def rows(self, split: str, class_name: str | None = None) -> NDArray[np.int64]:
        """Rows of a split, or of one of its classes, ascending."""
        mask = pc.equal(self.table["split"], split)
        if class_name is not None:
            mask = pc.and_(mask, pc.equal(self.table["class"], class_name))
        return self._column("row", mask)

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels (n,) of rows."""
        return np.asarray(self.table["label"].to_numpy())[rows].astype(np.int64)

    def paths(self, rows: NDArray[np.int64]) -> list[str]:
        """Paths of rows, as the source knows them."""
        return self.table["path"].take(pa.array(rows)).to_pylist()

    def hashes(self, rows: NDArray[np.int64]) -> list[str]:
        """Content hashes of rows."""
        return self.table["hash"].take(pa.array(rows)).to_pylist()

    def counts(self, split: str) -> dict[str, int]:
        """Images per class of a split, 0 where it has none."""
        chosen = self.table.filter(pc.equal(self.table["split"], split))["class"].value_counts().to_pylist()
        found = {entry["values"]: entry["counts"] for entry in chosen}
        return {name: found.get(name, 0) for name in self.classes}

    def _column(self, name: str, mask: Any) -> NDArray[np.int64]:
        return np.asarray(self.table.filter(mask)[name].to_numpy()).astype(np.int64)
