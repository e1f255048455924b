"""A distilled set to be handed to people who have none of this: arrays, the teacher's logits, facts for a card."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.artifact import Artifact, NotDone
from tasks.inputs.models import load_classifier
from tasks.inputs.stores import Distilled, distilled_set
from tasks.recipe.settings import Weighting


@dataclass(frozen=True)
class Handout(Distilled):
    """A distilled set with the teacher's logits (N, C) float32 for its plain pictures, if any, and what a card says."""

    logits: NDArray[np.float32] | None = None
    card: dict[str, Any] = field(default_factory=dict)

    def folder_of(self, label: int) -> str:
        """A class's folder: numbers of one width, so that any sorting gives the labels back."""
        return f"{label:0{len(str(len(self.classes) - 1))}d}-{self.classes[label]}"

    def name_of(self, row: int) -> str:
        """A picture's place below the folder of its class."""
        label = int(self.labels[row])
        number, most = row - int(np.searchsorted(self.labels, label)), int(np.bincount(self.labels).max())
        return f"{self.folder_of(label)}/{number:0{len(str(most - 1))}d}"

    def facts(self) -> Iterator[dict[str, Any]]:
        """What is told of each picture."""
        for label, weight, centroid in zip(self.labels, self.weights, self.centroids, strict=True):
            name = self.classes[label]
            yield {"label": int(label), "class": name, "weight": float(weight), "centroid": int(centroid)}

    def png_of(self, row: int) -> bytes:
        """A picture as PNG."""
        buffer = io.BytesIO()
        Image.fromarray(self.images[row]).save(buffer, "PNG")
        return buffer.getvalue()


def collect(decode: Artifact, weights: Weighting, teacher: Artifact | None) -> Handout:
    """The pictures of a decode artifact, weighted by this rule, with a teacher's logits where one is given.

    Raises NotDone for an artifact that is not finished or of another stage, ValueError for an unknown rule.
    """
    for artifact, stage in ((decode, "decode"), *([(teacher, "teacher")] if teacher else [])):
        if artifact.stage != stage or not artifact.is_done():
            raise NotDone(
                f"{artifact} is no finished artifact of the stage {stage}, or has a damaged file, which `ddoq verify` "
                "names: run `ddoq run`, or give another"
            )
    distilled, cluster = distilled_set(decode, weights), decode.parents["cluster"]
    card = {
        "source": _source(decode.ancestor("shard")),
        "images per class": len(distilled.images) // len(distilled.classes),
        "weights": weights,
        "prototypes": cluster.config,
        "pictures": decode.config,
        "W2 of the mass-weighted prototypes, mean over classes": fmean(
            mark.facts["w2"] for mark in cluster.marks().values()
        ),
        "teacher": None if teacher is None else {"top1": teacher.record().facts.get("top1")},
        "made from": {"decode": decode.digest, "cluster": cluster.digest},
    }
    logits = None if teacher is None else _logits(teacher, distilled.images)
    return Handout(**vars(distilled), logits=logits, card=card)


def _source(shard: Artifact) -> dict[str, str]:
    """What the set derives from, without the place where it lay."""
    config = shard.config
    return {"kind": config["source"], **({"name": Path(config["path"]).name} if config.get("path") else {})}


def _logits(teacher: Artifact, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    from ddoq_core.train.accuracy import predict

    return predict(load_classifier(teacher), images)
