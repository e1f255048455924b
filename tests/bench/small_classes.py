"""What writing costs where classes are many and small: files, and seconds a unit, of one image a class.

    uv run python -m tests.bench.small_classes [--classes 1000]

Latents, prototypes and pictures of as many classes, written and committed as their stages do, a pack after the other.
Beside each, in the same run, its bytes as one file a class, brought to the disk as a mark is: what no class with a file
of its own can be below. The last line is JSON:

files           of latents, prototypes and pictures, a class
seconds         of writing and committing these, a class
remade_seconds  of dropping and writing the pack of one class anew, as where a file of it is damaged
peer_seconds    of one file with the same bytes
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
from storage.packs import BLOCK_IMAGES, PACK_PICTURES, packed
from storage.zarr_store import ClassStore, LatentStore
from tasks.inputs import meanings
from tasks.inputs.stores import IMAGES, LATENTS, PROTOTYPES

LATENT, SIZE_PX = (4, 32, 32), 64
console = Console(width=120)
rng = np.random.default_rng(0)


def latents(artifact: Artifact, pack: str, names: tuple[str, ...]) -> tuple[str, list[Path]]:
    z = rng.normal(size=(len(names), *LATENT)).astype(np.float16)
    store = LatentStore(artifact.path / LATENTS)
    store.prepare_pack(pack, {name: np.ones(1, np.int64) for name in names}, LATENT)
    return f"{pack}/0", store.write_block(pack, 0, z)


def prototypes(artifact: Artifact, pack: str, names: tuple[str, ...]) -> tuple[str, list[Path]]:
    arrays: dict[str, dict[str, NDArray[np.generic]]] = {
        name: {
            "centroids": rng.normal(size=(1, *LATENT)).astype(np.float32),
            "counts": np.ones(1, np.int64),
            "assignment": np.ones(1, np.int32),
            "medoids": np.ones(1, np.int64),
        }
        for name in names
    }
    store, each = ClassStore(artifact.path / PROTOTYPES, meanings=meanings.PROTOTYPES), [1.5] * len(names)
    return pack, store.write_pack(pack, arrays, inertia=each, w2=each)


def pictures(artifact: Artifact, pack: str, names: tuple[str, ...]) -> tuple[str, list[Path]]:
    arrays: dict[str, dict[str, NDArray[np.generic]]] = {
        name: {
            "images": rng.integers(0, 256, (1, SIZE_PX, SIZE_PX, 3), dtype=np.uint8),
            "centroid": np.ones(1, np.int64),
            "seed": rng.integers(0, 1 << 60, 1),
        }
        for name in names
    }
    store = ClassStore(artifact.path / IMAGES, meanings=meanings.IMAGES)
    return pack, store.write_pack(pack, arrays, method="diffusion", seed=0)


Write = Callable[[Artifact, str, tuple[str, ...]], tuple[str, list[Path]]]
STORES: dict[str, tuple[Write, int]] = {
    "latents": (latents, BLOCK_IMAGES),
    "prototypes": (prototypes, BLOCK_IMAGES),
    "pictures": (pictures, PACK_PICTURES),
}


def measure(root: Path, kind: str, num_classes: int) -> dict[str, float]:
    """The figures of one kind of store."""
    write, most = STORES[kind]
    artifact, units, made = Artifact(root, kind, 1, {}), [], 0.0
    packs = packed(tuple((f"n{k:08d}", 1) for k in range(num_classes)), most).classes
    start = time.perf_counter()
    for pack, names in packs.items():
        begun = time.perf_counter()
        unit, files = write(artifact, pack, names)
        made += time.perf_counter() - begun
        artifact.commit(unit, files, inputs="", clock=Clock(), facts={"classes": names})
        units.append(unit)
    seconds = time.perf_counter() - start
    artifact.finish(units)
    finished = time.perf_counter() - start - seconds
    found = list_files(artifact.path)
    data = bytes(sum(file.stat().st_size for file in found) // num_classes)
    pack, names = next(iter(packs.items()))
    start = time.perf_counter()
    artifact.forget(units[0])
    unit, files = write(artifact, pack, names)
    artifact.commit(unit, files, inputs="", clock=Clock(), facts={"classes": names})
    remade = time.perf_counter() - start
    start = time.perf_counter()
    for k in range(num_classes):
        write_whole(root / f"peer-{kind}" / f"n{k:08d}", data)
    return {
        "files": len(found) / num_classes,
        "seconds": seconds / num_classes,
        "made": made / num_classes,
        "finished": finished / num_classes,
        "remade_seconds": remade,
        "peer_seconds": (time.perf_counter() - start) / num_classes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    num_classes = parser.parse_args().classes
    with tempfile.TemporaryDirectory() as name:
        found = {kind: measure(Path(name), kind, num_classes) for kind in STORES}
    table = Table(
        *("store", "files", "ms a class", "of it made", "and committed", "ms to finish", "ms to remake one"),
        "ms of one file",
        width=110,
    )
    for kind, f in found.items():
        committed = f["seconds"] - f["made"]
        told = (f["seconds"], f["made"], committed, f["finished"], f["remade_seconds"], f["peer_seconds"])
        table.add_row(kind, f"{f['files']:.2f}", *(f"{1000 * value:.1f}" for value in told))
    console.print(table)
    total = {key: sum(f[key] for f in found.values()) for key in ("files", "seconds", "remade_seconds", "peer_seconds")}
    mean = {key: total[key] / len(found) for key in ("seconds", "remade_seconds", "peer_seconds")}
    print(json.dumps({"files": total["files"], **mean, "classes": num_classes}))


if __name__ == "__main__":
    main()
