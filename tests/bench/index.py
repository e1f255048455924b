"""An index of ImageNet-1K's size from made-up paths: built, written, read, its encoding planned, and then the whole
recipe by the command `ddoq plan imagenet --probe 0`.

`uv run python -m tests.bench.index [share of the size]`: a table, and as its last line JSON.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from PIL import Image
from rich.console import Console

from flows.catalogue import load_recipe
from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import INDEX, Index
from storage.sources.listing import BATCH_ROWS, Listing, ListingBuilder, Location
from tasks import encode
from tasks.inputs.data import shard_artifact
from tasks.inputs.stores import indexed, packed
from tests.flows.conftest import SCRIPTS

TRAINING, VALIDATION, CLASSES = 1_281_167, 50_000, 1000
T = TypeVar("T")


def main(share: float) -> None:
    """Measure and print."""
    console, start = Console(), time.perf_counter()
    result = {"imports_gib": Clock.peak_bytes() / 2**30}

    def timed(name: str, part: Callable[[], T]) -> T:
        began = time.perf_counter()
        found = part()
        result[f"{name}_seconds"] = time.perf_counter() - began
        console.print(
            f"{name:<10}{result[f'{name}_seconds']:8.2f} s{Clock.peak_bytes() / 2**30:8.3f} GiB at most so far"
        )
        return found

    with tempfile.TemporaryDirectory() as name:
        root, images = Path(name) / "runs", Path(name) / "images"
        recipe = load_recipe("imagenet").with_changes({"data.path": str(images)})
        shard = shard_artifact(root, recipe.data)
        with shard.writing(INDEX, Clock()) as folder:
            timed("build", lambda: built(listed(share)).write(folder))
        index = timed("read", lambda: indexed(shard)[1])
        timed("identity", lambda: index.identity)
        timed("duplicates", index.duplicates)
        artifact = unencoded(root, shard)
        units = timed("units", lambda: encode.units(artifact, index))
        assert len(units) == encode.num_units(packed(artifact), index)
        write_first_images(images, index)
        command = [SCRIPTS / "ddoq", "plan", "imagenet", "--probe", "0", "--root", root, "--set", f"data.path={images}"]
        planned = timed("plan", lambda: subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert f"{len(units):,}" in planned, planned
    result |= {"images": len(index.table), "units": len(units)}
    print(json.dumps({**result, "seconds": time.perf_counter() - start, "peak_gib": Clock.peak_bytes() / 2**30}))


def listed(share: float) -> Listing:
    """Training and validation images as ImageNet names them."""
    builder = ListingBuilder()
    names = [f"n{c:08d}" for c in range(CLASSES)]
    for split, count in (("train", round(share * TRAINING)), ("val", round(share * VALIDATION))):
        for k in range(count):
            name = names[k * CLASSES // count]
            builder.add(name, split, Location(f"{split}/{name}/{name}_{k}.JPEG", 0, 110_000))
    return builder.finish()


def built(listing: Listing) -> Index:
    """With a hash for each image, made up in batches as the stage makes them."""
    starts = range(0, len(listing.images), BATCH_ROWS)
    hashes = [pa.array([_hash(k) for k in range(s, min(s + BATCH_ROWS, len(listing.images)))]) for s in starts]
    return Index.build(listing.images, pa.chunked_array(hashes), listing.images["class"].unique().to_pylist())


def unencoded(root: Path, shard: Artifact) -> Artifact:
    """An encode artifact with nothing in it; its autoencoder is done."""
    model = Artifact(root, "autoencoder", 1, {})
    with model.writing("model", Clock()) as folder:
        (folder / "weights.json").write_text("{}")
    return Artifact(root, "encode", encode.VERSION, {}, {"shard": shard, "autoencoder": model})


def write_first_images(images: Path, index: Index) -> None:
    """One image of each class and split, where a plan looks whether there are any."""
    for split in ("train", "val"):
        for name in index.classes:
            (images / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(images / split / name / "0.JPEG")


def _hash(k: int) -> str:
    return hashlib.blake2b(k.to_bytes(8, "little"), digest_size=16).hexdigest()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
