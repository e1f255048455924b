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
    told = {"info": {"features": {feature.pop("name"): feature for feature in _features(handout)}}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(told)})
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")


def _features(handout: Handout) -> list[dict[str, Any]]:
    """The columns as datasets keeps them beside a table's schema."""
    names = list(handout.classes)
    features: list[dict[str, Any]] = [
        {"name": "image", "_type": "Image"},
        {"name": "label", "names": names, "_type": "ClassLabel"},
        {"name": "weight", "dtype": "float64", "_type": "Value"},
        {"name": "centroid", "dtype": "int64", "_type": "Value"},
    ]
    logits = {"name": "logits", "feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
    return [*features, logits] if handout.logits is not None else features


def columns_of(handout: Handout) -> dict[str, Any]:
    """What the card's front matter says of the columns, and where they lie."""
    names = {str(label): name for label, name in enumerate(handout.classes)}
    features: list[dict[str, Any]] = [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": names}}},
        {"name": "weight", "dtype": "float64"},
        {"name": "centroid", "dtype": "int64"},
    ]
    if handout.logits is not None:
        features.append({"name": "logits", "sequence": "float32"})
    return {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
        "dataset_info": {"features": features},
    }
