"""Images per second from S3 on loopback and from the disk: shards of JPEG files of 256 px, indexed and then read in a
random order, each in turns. `uv run python -m tests.bench.remote [--images 600] [--rounds 5]`: a table, and as its last
line JSON of medians over the rounds.

index_ratio, read_ratio  S3's images per second through local files'. The server is moto's, a process of Python that
                         shares this machine's cores and copies a whole shard for every range: a lower bound.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import fsspec
import numpy as np
from PIL import Image
from rich.console import Console

from tasks.inputs.data import shard_artifact
from tasks.inputs.real import cut, read_batches
from tasks.inputs.stores import indexed
from tasks.recipe.settings import DataConfig, ImageConfig
from tasks.shard import shard
from tests.storage.sources.test_archives import write_tar

SIZE_PX, SHARDS = 256, 4
BUCKET = "pictures"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, bucket() as address:
        folder = Path(name)
        files = fsspec.filesystem("s3")
        files.mkdir(BUCKET)
        for path in write_shards(folder, args.images):
            files.put_file(str(path), f"{BUCKET}/{path.name}")
        places = {"disk": str(folder), "S3": address}
        rounds = [
            {place: measured(folder / f"{place}-{k}", f"{at}/*.tar") for place, at in places.items()}
            for k in range(args.rounds)
        ]
    found = {p: [args.images / median(r[p][part] for r in rounds) for part in range(2)] for p in places}
    for place, (index, read) in found.items():
        Console().print(f"{place:<5} indexed {index:7.0f} images/s, read {read:7.0f} images/s")
    ratios = {
        f"{part}_ratio": round(median(r["disk"][k] / r["S3"][k] for r in rounds), 3)
        for k, part in enumerate(("index", "read"))
    }
    print(json.dumps({"images": args.images, "rounds": args.rounds, "images_per_second": found, **ratios}))


def measured(root: Path, path: str) -> tuple[float, float]:
    """Seconds of the stage shard, and of reading all images in a random order."""
    data = DataConfig(source="tar", path=path)
    artifact, start = shard_artifact(root, data), time.perf_counter()
    shard.fn(artifact, data)
    listed = time.perf_counter()
    artifact, index = indexed(artifact)
    rows = np.random.default_rng(0).permutation(len(index.table))
    for _ in read_batches(artifact, index, cut(rows, 64), ImageConfig(size_px=64)):
        pass
    return listed - start, time.perf_counter() - listed


def write_shards(folder: Path, num_images: int) -> list[Path]:
    """Smooth noise, which takes as many bytes as a photograph."""
    rng = np.random.default_rng(0)
    members: list[dict[str, bytes]] = [{} for _ in range(SHARDS)]
    for k in range(num_images):
        coarse = Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8))
        buffer = io.BytesIO()
        coarse.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        members[k % SHARDS][f"{'train' if k % 5 else 'val'}/{'ab'[k // SHARDS % 2]}/{k}.jpg"] = buffer.getvalue()
    return [write_tar(folder / f"{k}.tar", shard) for k, shard in enumerate(members)]


@contextmanager
def bucket() -> Iterator[str]:
    """A server of S3's interface in a process of its own, known by the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"s3://{BUCKET}"
    finally:
        server.terminate()
        server.wait(timeout=10)


if __name__ == "__main__":
    main()
