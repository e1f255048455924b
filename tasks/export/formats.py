"""The distilled set as other tools read it, one writer per format; `export` writes a folder whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from storage.errors import UsageError
from storage.files import whole_folder
from tasks.export.card import Distilled, card_text

CARD, SOFT_LABELS = "README.md", "soft_labels.npy"
IMAGES_PER_TAR = 10_000


def export(distilled: Distilled, form: str, out: Path) -> None:
    """Write the set into a new folder. Raises UsageError for an unknown form or a folder that is not empty."""
    if form not in WRITERS:
        raise UsageError(f"unknown format {form!r}: there are {', '.join(WRITERS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder: give another with --out")
    with whole_folder(out) as folder:
        WRITERS[form](distilled, folder)
        if not (folder / CARD).exists():
            (folder / CARD).write_text(card_text(distilled))


def write_imagefolder(distilled: Distilled, folder: Path) -> None:
    """`train/<class>/<centroid>.png` with `train/metadata.csv`; soft labels (N, C) in the order of its rows."""
    with (_made(folder / "train") / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "label", "class", "weight", "centroid"))
        for row, facts in enumerate(_facts(distilled)):
            name = f"{distilled.name_of(row)}.png"
            path = folder / "train" / name
            _made(path.parent)
            path.write_bytes(_png(distilled, row))
            writer.writerow((name, facts["label"], facts["class"], facts["weight"], facts["centroid"]))
    if distilled.logits is not None:
        np.save(folder / SOFT_LABELS, distilled.logits)


def write_huggingface(distilled: Distilled, folder: Path) -> None:
    """`data/train-….parquet` and a card that declares its features: `load_dataset(folder)` reads it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    facts = list(_facts(distilled))
    images = [{"bytes": _png(distilled, row), "path": f"{distilled.name_of(row)}.png"} for row in range(len(facts))]
    columns: dict[str, Any] = {
        "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "label": pa.array([f["label"] for f in facts], pa.int64()),
        "weight": pa.array([f["weight"] for f in facts], pa.float64()),
        "centroid": pa.array([f["centroid"] for f in facts], pa.int64()),
    }
    if distilled.logits is not None:
        columns["logits"] = pa.array(distilled.logits.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table(columns), _made(folder / "data") / "train-00000-of-00001.parquet")
    (folder / CARD).write_text(card_text(distilled, _front_matter(distilled)))


def write_webdataset(distilled: Distilled, folder: Path) -> None:
    """`train-….tar` with png, cls, json (weight, centroid, class) and logits.npy per picture."""
    facts = list(_facts(distilled))
    for first in range(0, len(facts), IMAGES_PER_TAR):
        with tarfile.open(folder / f"train-{first // IMAGES_PER_TAR:06d}.tar", "w") as tar:
            for row in range(first, min(first + IMAGES_PER_TAR, len(facts))):
                key = distilled.name_of(row).replace("/", "-").replace(".", "_")  # what follows a dot is the kind
                _add(tar, f"{key}.png", _png(distilled, row))
                _add(tar, f"{key}.cls", str(facts[row]["label"]).encode())
                _add(tar, f"{key}.json", json.dumps(facts[row]).encode())
                if distilled.logits is not None:
                    buffer = io.BytesIO()
                    np.save(buffer, distilled.logits[row])
                    _add(tar, f"{key}.logits.npy", buffer.getvalue())


def write_torch(distilled: Distilled, folder: Path) -> None:
    """`distilled.pt`: images (N, 3, S, S) uint8, labels int64, weights float32, logits float32, class names."""
    import torch

    tensors: dict[str, Any] = {
        "images": torch.from_numpy(distilled.images).permute(0, 3, 1, 2).contiguous(),
        "labels": torch.from_numpy(distilled.labels),
        "weights": torch.from_numpy(distilled.weights).float(),
        "classes": list(distilled.classes),
    }
    if distilled.logits is not None:
        tensors["logits"] = torch.from_numpy(distilled.logits)
    torch.save(tensors, folder / "distilled.pt")


def write_dd_ranking(distilled: Distilled, folder: Path) -> None:
    """What DD-Ranking's evaluators take (arXiv 2505.13300): `images.pt` (N, 3, S, S) float32 in [0, 1], class after
    class, `labels.pt` (N, C) logits, and the same pictures as an image folder. It knows no weights: they are beside.
    """
    import torch

    from ddoq_core.images import to_unit

    torch.save(to_unit(distilled.images), folder / "images.pt")
    torch.save(torch.from_numpy(distilled.weights).float(), folder / "weights.pt")
    if distilled.logits is not None:
        torch.save(torch.from_numpy(distilled.logits), folder / "labels.pt")
    write_imagefolder(distilled, folder)


WRITERS: dict[str, Callable[[Distilled, Path], None]] = {
    "imagefolder": write_imagefolder,
    "huggingface": write_huggingface,
    "webdataset": write_webdataset,
    "dd-ranking": write_dd_ranking,
    "torch": write_torch,
}


def _facts(distilled: Distilled) -> Iterator[dict[str, Any]]:
    for label, weight, centroid in zip(distilled.labels, distilled.weights, distilled.centroids, strict=True):
        name = distilled.classes[label]
        yield {"label": int(label), "class": name, "weight": float(weight), "centroid": int(centroid)}


def _png(distilled: Distilled, row: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(distilled.images[row]).save(buffer, "PNG")
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _front_matter(distilled: Distilled) -> str:
    names = {str(label): name for label, name in enumerate(distilled.classes)}
    features: list[dict[str, Any]] = [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": names}}},
        {"name": "weight", "dtype": "float64"},
        {"name": "centroid", "dtype": "int64"},
    ]
    if distilled.logits is not None:
        features.append({"name": "logits", "sequence": "float32"})
    declared = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
        "dataset_info": {"features": features},
    }
    return "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in declared.items()) + "\n---\n\n"
