"""What writing costs where classes are many and small: files, and seconds a unit, of one image a class.

    uv run python -m tests.bench.small_classes [--classes 1000]

Latents, prototypes and pictures of as many classes, written and committed as their stages do. Beside each, in the same
run, its bytes as one file a class, brought to the disk as a mark is: what no unit with a file of its own can be below.
The last line is JSON:

files         of latents, prototypes and pictures, a class
seconds       of writing and committing these, a unit
peer_seconds  of one file with the same bytes
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import list_files, write_whole
from tasks.inputs.stores import images_of, latents_of, prototypes_of

LATENT, SIZE_PX = (4, 32, 32), 64
console = Console(width=120)
rng = np.random.default_rng(0)


def latents(artifact: Artifact, name: str) -> tuple[str, list[Path]]:
    z = rng.normal(size=(1, *LATENT)).astype(np.float16)
    latents_of(artifact).prepare_class(name, np.ones(1, np.int64), LATENT)
    return f"{name}/0", latents_of(artifact).write_block(name, 0, z)


def prototypes(artifact: Artifact, name: str) -> tuple[str, list[Path]]:
    arrays: dict[str, NDArray[np.generic]] = {
        "centroids": rng.normal(size=(1, *LATENT)).astype(np.float32),
        "counts": np.ones(1, np.int64),
        "assignment": np.ones(1, np.int32),
        "medoids": np.ones(1, np.int64),
    }
    return name, prototypes_of(artifact).write_class(name, arrays, inertia=1.5, w2=1.5)


def pictures(artifact: Artifact, name: str) -> tuple[str, list[Path]]:
    arrays: dict[str, NDArray[np.generic]] = {
        "images": rng.integers(0, 256, (1, SIZE_PX, SIZE_PX, 3), dtype=np.uint8),
        "centroid": np.ones(1, np.int64),
        "seed": rng.integers(0, 1 << 60, 1),
    }
    return name, images_of(artifact).write_class(name, arrays, method="diffusion", seed=0)


STORES: dict[str, Callable[[Artifact, str], tuple[str, list[Path]]]] = {
    "latents": latents,
    "prototypes": prototypes,
    "pictures": pictures,
}


def measure(root: Path, kind: str, num_classes: int) -> dict[str, float]:
    """The figures of one kind of store."""
    artifact, units, made = Artifact(root, kind, 1, {}), [], 0.0
    start = time.perf_counter()
    for k in range(num_classes):
        begun = time.perf_counter()
        unit, files = STORES[kind](artifact, f"n{k:08d}")
        made += time.perf_counter() - begun
        artifact.commit(unit, files, inputs="", clock=Clock())
        units.append(unit)
    seconds = time.perf_counter() - start
    artifact.finish(units)
    finished = time.perf_counter() - start - seconds
    found = list_files(artifact.path)
    data = bytes(sum(file.stat().st_size for file in found) // num_classes)
    start = time.perf_counter()
    for k in range(num_classes):
        write_whole(root / f"peer-{kind}" / f"n{k:08d}", data)
    return {
        "files": len(found) / num_classes,
        "seconds": seconds / num_classes,
        "made": made / num_classes,
        "finished": finished / num_classes,
        "peer_seconds": (time.perf_counter() - start) / num_classes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    num_classes = parser.parse_args().classes
    with tempfile.TemporaryDirectory() as name:
        found = {kind: measure(Path(name), kind, num_classes) for kind in STORES}
    table = Table(
        "store", "files", "ms a unit", "of it made", "and committed", "ms to finish", "ms of one file", width=100
    )
    for kind, f in found.items():
        committed = f["seconds"] - f["made"]
        told = (f["seconds"], f["made"], committed, f["finished"], f["peer_seconds"])
        table.add_row(kind, f"{f['files']:.1f}", *(f"{1000 * value:.1f}" for value in told))
    console.print(table)
    total = {key: sum(f[key] for f in found.values()) for key in ("files", "seconds", "peer_seconds")}
    mean = {key: total[key] / len(found) for key in ("seconds", "peer_seconds")}
    print(json.dumps({"files": total["files"], **mean, "classes": num_classes}))


if __name__ == "__main__":
    main()
