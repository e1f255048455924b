"""An image folder with a table of weights: torchvision and datasets read it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from tasks.export.handout import Handout

SOFT_LABELS = "soft_labels.npy"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would work out, where a cell begins with it


def write(handout: Handout, folder: Path) -> None:
    """`train/<class>/<centroid>.png` with `train/metadata.csv`; soft labels (N, C) in the order of its rows."""
    (folder / "train").mkdir()
    with (folder / "train" / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "label", "class", "weight", "centroid"))
        for row, facts in enumerate(handout.facts()):
            name = f"{handout.name_of(row)}.png"
            path = folder / "train" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(handout.png_of(row))
            writer.writerow((name, facts["label"], _as_text(facts["class"]), facts["weight"], facts["centroid"]))
    if handout.logits is not None:
        np.save(folder / SOFT_LABELS, handout.logits)


def _as_text(name: str) -> str:
    return f"'{name}" if name.startswith(FORMULA) else name
