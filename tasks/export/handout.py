"""A distilled set to be handed to people who have none of this: arrays, the teacher's logits, facts for a card."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.artifact import Artifact
from storage.names import file_name
from tasks.inputs.distilled import Distilled

CARD = "README.md"


def source_of(shard: Artifact) -> dict[str, str]:
    """What a set or a model derives from, without the place where it lay."""
    config = shard.config
    return {"kind": config["source"], **({"name": Path(config["path"]).name} if config.get("path") else {})}


def front_text(told: Mapping[str, Any]) -> str:
    """The front matter of a card, which a hub reads, and the empty line behind it."""
    return "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in told.items()) + "\n---\n\n"


@dataclass(frozen=True)
class Handout(Distilled):
    """A distilled set with the teacher's logits (N, C) float32 for its plain pictures, if any, and what a card says."""

    logits: NDArray[np.float32] | None = None
    card: dict[str, Any] = field(default_factory=dict)

    def folder_of(self, label: int) -> str:
        """A class's folder: numbers of one width, so that any sorting gives the labels back."""
        return f"{label:0{len(str(len(self.classes) - 1))}d}-{file_name(self.classes[label])}"

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
