"""Parquet with a card that declares its columns: Hugging Face's datasets reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.export.handout import Handout


def write(handout: Handout, folder: Path) -> None:
    """`data/train-….parquet` and a card that declares its features: `load_dataset(folder)` reads it."""
    facts = list(handout.facts())
    images = [{"bytes": handout.png_of(row), "path": f"{handout.name_of(row)}.png"} for row in range(len(facts))]
    columns: dict[str, Any] = {
        "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "label": pa.array([f["label"] for f in facts], pa.int64()),
        "weight": pa.array([f["weight"] for f in facts], pa.float64()),
        "centroid": pa.array([f["centroid"] for f in facts], pa.int64()),
    }
    if handout.logits is not None:
        columns["logits"] = pa.array(handout.logits.tolist(), pa.list_(pa.float32()))
    (folder / "data").mkdir()
    told = {"info": {"features": {name: feature for name, feature, _ in _columns(handout)}}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(told)})
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")


def columns_of(handout: Handout) -> dict[str, Any]:
    """What the card's front matter says of the columns, and where they lie."""
    return {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
        "dataset_info": {"features": [{"name": name, **told} for name, _, told in _columns(handout)]},
    }


def _columns(handout: Handout) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each column as datasets writes it beside a table's schema, and in a card's front matter."""
    names = list(handout.classes)
    numbered = {str(label): name for label, name in enumerate(names)}
    columns: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("image", {"_type": "Image"}, {"dtype": "image"}),
        ("label", {"names": names, "_type": "ClassLabel"}, {"dtype": {"class_label": {"names": numbered}}}),
        ("weight", _value("float64"), {"dtype": "float64"}),
        ("centroid", _value("int64"), {"dtype": "int64"}),
    ]
    if handout.logits is not None:
        columns.append(("logits", {"feature": _value("float32"), "_type": "List"}, {"sequence": "float32"}))
    return columns


def _value(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "_type": "Value"}
