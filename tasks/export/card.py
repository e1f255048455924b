"""A distilled set taken from its artifacts, to be handed to people who have none of this: arrays and a card."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.artifact import Mark, NotDone, Record, load_saved
from storage.files import list_files
from storage.index import Index
from storage.zarr_store import ClassStore
from tasks.cluster import STORE as PROTOTYPES
from tasks.decode import STORE as IMAGES
from tasks.inputs.models import MODEL
from tasks.shard import UNIT


@dataclass(frozen=True)
class Distilled:
    """N pictures in label order: images (N, S, S, 3) uint8, labels, centroids and weights (N,), logits (N, C)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    centroids: NDArray[np.int64]
    weights: NDArray[np.float64]
    classes: tuple[str, ...]
    logits: NDArray[np.float32] | None
    card: dict[str, Any] = field(default_factory=dict)

    def folder_of(self, label: int) -> str:
        """A class's folder: numbers of one width, so that any sorting gives the labels back."""
        return f"{label:0{len(str(len(self.classes) - 1))}d}-{self.classes[label]}"

    def name_of(self, row: int) -> str:
        """A picture's place below the folder of its class."""
        label = int(self.labels[row])
        number, most = row - int(np.searchsorted(self.labels, label)), int(np.bincount(self.labels).max())
        return f"{self.folder_of(label)}/{number:0{len(str(most - 1))}d}"


def collect(folder: Path, weights: str | float, teacher: Path | None) -> Distilled:
    """The set of a decode artifact's folder, its weights by this rule, the teacher's logits for its plain pictures.

    teacher  the folder of a teacher artifact, or None: no logits
    Raises NotDone for a folder that holds no finished pictures, ValueError for an unknown rule.
    """
    from ddoq_core import class_weights

    decode = _record(folder, "decode")
    cluster_folder = _parent(folder, decode, "cluster")
    cluster = _record(cluster_folder, "cluster")
    encode_folder = _parent(folder, cluster, "encode")
    shard_folder = _parent(folder, _record(encode_folder, "encode"), "shard")
    classes = Index.read(shard_folder / UNIT).classes
    found = [ClassStore(folder / IMAGES).read_class(name) for name in classes]
    counts = [ClassStore(cluster_folder / PROTOTYPES).read_class(name)["counts"] for name in classes]
    images = np.concatenate([part["images"] for part in found])
    return Distilled(
        images=images,
        labels=np.repeat(np.arange(len(classes)), [len(part["images"]) for part in found]),
        centroids=np.concatenate([part["centroid"] for part in found]),
        weights=np.concatenate(
            [class_weights(c, weights)[part["centroid"]] for c, part in zip(counts, found, strict=True)]
        ),
        classes=classes,
        logits=None if teacher is None else _logits(teacher, images),
        card={
            "source": _source(shard_folder),
            "images per class": len(found[0]["images"]),
            "weights": weights,
            "prototypes": cluster.config,
            "pictures": decode.config,
            "W2 of the mass-weighted prototypes, mean over classes": _mean_w2(cluster_folder),
            "teacher": None if teacher is None else {"top1": _record(teacher, "teacher").facts.get("top1")},
            "made from": {"decode": decode.digest, "cluster": cluster.digest},
        },
    )


def card_text(distilled: Distilled, front_matter: str = "") -> str:
    """The data set's card, in Markdown."""
    where = " ".join(distilled.card["source"].values())
    kind = "real" if distilled.card["pictures"]["method"] == "medoid" else "synthetic"
    settings = json.dumps(distilled.card, indent=1, default=str)
    return f"""{front_matter}# A distilled data set

{len(distilled.images)} {kind} pictures of {len(distilled.classes)} classes, {distilled.images.shape[1]} px, made by
ddoq (optimal quantisation in latent space, arXiv 2501.07681).

Each picture has a weight: multiply its loss by it. The mean over a class is 1, or at most 1 for the rule
`sqrt-paper`. `centroid` is the number of the prototype within its class. Soft labels, where there are any, are a
teacher's logits for the picture as it is, without augmentation.

## Licence

These pictures derive from: {where}. Its licence and terms of use hold for them too, as may those of the
autoencoder, the diffusion model and the teacher. Read them before you pass the set on.

## How it was made

```json
{settings}
```
"""


def _record(folder: Path, stage: str) -> Record:
    record = load_saved(Record, folder / "record.json")
    if record is None or record.stage != stage:
        raise NotDone(f"{folder} is no finished artifact of the stage {stage}: give one like runs/digits/images-ddoq-0")
    return record


def _parent(folder: Path, record: Record, stage: str) -> Path:
    return folder.resolve().parents[1] / stage / record.parents[stage]


def _source(shard_folder: Path) -> dict[str, str]:
    """What the set derives from, without the place where it lay."""
    config = _record(shard_folder, "shard").config
    return {"kind": config["source"], **({"name": Path(config["path"]).name} if config.get("path") else {})}


def _mean_w2(folder: Path) -> float:
    marks = [load_saved(Mark, path) for path in list_files(folder / "marks")]
    return fmean(mark.facts["w2"] for mark in marks if mark)


def _logits(teacher: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    from ddoq_core.train.accuracy import predict
    from ddoq_core.train.networks import load_classifier

    _record(teacher, "teacher")
    return predict(load_classifier(teacher / MODEL), images)
