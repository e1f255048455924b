"""Tars of one sample after the other: webdataset reads them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np

from tasks.export.handout import Handout

IMAGES_PER_TAR = 10_000


def write(handout: Handout, folder: Path) -> None:
    """`train-….tar` with png, cls, json (weight, centroid, class) and logits.npy per picture."""
    facts = list(handout.facts())
    for first in range(0, len(facts), IMAGES_PER_TAR):
        with tarfile.open(folder / f"train-{first // IMAGES_PER_TAR:06d}.tar", "w") as tar:
            for row in range(first, min(first + IMAGES_PER_TAR, len(facts))):
                key = handout.name_of(row).replace("/", "-").replace(".", "_")  # what follows a dot is the kind
                _add(tar, f"{key}.png", handout.png_of(row))
                _add(tar, f"{key}.cls", str(facts[row]["label"]).encode())
                _add(tar, f"{key}.json", json.dumps(facts[row]).encode())
                if handout.logits is not None:
                    buffer = io.BytesIO()
                    np.save(buffer, handout.logits[row])
                    _add(tar, f"{key}.logits.npy", buffer.getvalue())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
