"""Encoding against its limits: the bare autoencoder, D4M's way of encoding, and the memory it takes.

    uv run python -m tests.bench.encode            # all parts; the last line is JSON
    uv run python -m tests.bench.encode --whole    # once through all of ImageNette, for the record

The stages run as in a run: by their flows, with a Prefect server and Dask's single-threaded worker processes, on
photographs in a class folder. They are timed as wall time of the flows shard and encode, the worker processes being
up; the bare autoencoder runs in the same worker processes, all at once, on batches that are ready, in the same
floating-point type. Rounds alternate. D4M's way is re-stated from the description of its code (arXiv 2407.15138).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from flows.catalogue import load_recipe
from flows.server import prefect_server
from storage.cores import num_cores
from tasks.recipe.recipe import Recipe
from tests.bench.d4m_encode import in_a_process_of_its_own, save_small_autoencoder
from tests.bench.latents import IMAGENETTE, SHARED, members

SIZE_PX = 128
PER_CLASS = 200
ROUNDS = 3
WORKERS = num_cores()
TAEF2 = SHARED / "weights/taef2"
console = Console(width=120)


@contextmanager
def workers() -> Iterator[Any]:
    """A Dask cluster as a run starts it, whose processes stay up between the stages, and its client."""
    from dask.distributed import Client

    from flows.runners import dask_runner, local_cluster

    dask_runner()  # sets how Dask starts its processes
    with local_cluster(WORKERS) as cluster, Client(cluster) as client:
        yield client


def recipe_of(folder: Path, autoencoder: Path, size_px: int = SIZE_PX) -> Recipe:
    """The recipe `folder` on these images, with these weights."""
    weights = json.dumps({"weights": str(autoencoder)})
    settings = [f"data.path={folder}", f"images.size_px={size_px}", f"autoencoder={weights}", "ipc=1"]
    return load_recipe("folder", settings=settings)


def write_folder(folder: Path, per_class: int | None) -> int:
    """Class folders of ImageNette's own JPEG files, some of each class or all. Returns how many train."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for path, data in members(IMAGENETTE):
        split, name = path.parts[-3:-1]
        if counts[split, name] < (per_class or len(data)):
            counts[split, name] += 1
            file = folder / split / name / path.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    return sum(count for (split, _), count in counts.items() if split == "train")


def run_stages(recipe: Recipe, root: Path, client: Any, *stages: str) -> float:
    """Seconds of the flows of some stages."""
    from flows import local

    start = time.perf_counter()
    for stage in stages:
        local.execute(stage, recipe, root, cluster=client.scheduler.address, workers=None)
    return time.perf_counter() - start


def through_the_stages(recipe: Recipe, root: Path, client: Any) -> float:
    """Seconds of shard and encode together, from nothing; the stage between them is not counted."""
    shutil.rmtree(root, ignore_errors=True)
    seconds = run_stages(recipe, root, client, "shard")
    run_stages(recipe, root, client, "autoencoder")
    return seconds + run_stages(recipe, root, client, "encode")


def bare(root: Path, num_images: int, size_px: int, client: Any) -> float:
    """Seconds of the autoencoder alone in every worker process at once, on ready batches."""
    addresses = list(client.scheduler_info(n_workers=-1)["workers"])
    futures = [
        client.submit(_bare_share, str(root), num_images // len(addresses), size_px, workers=[a], pure=False)
        for a in addresses
    ]
    return max(client.gather(futures))


def _bare_share(root: str, num_images: int, size_px: int) -> float:
    import torch

    [folder] = Path(root).glob("autoencoder/*/model")
    from tasks.inputs.models import _encoder

    model = _encoder(str(folder), "bench")
    size = model.batch_size(size_px)
    x = torch.rand(size, 3, size_px, size_px).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        model.posterior(x)
        start = time.perf_counter()
        for _ in range(num_images // size):
            model.posterior(x)
    return time.perf_counter() - start


def race_the_model(folder: Path, num_images: int, root: Path, client: Any) -> dict[str, Any]:
    """Part 1: images/s of the stages against the bare TAEF2."""
    recipe, rates = recipe_of(folder, TAEF2), defaultdict(list)
    through_the_stages(recipe, root, client)  # workers import what they need, files come into the cache
    for _ in range(ROUNDS):
        rates["bare TAEF2, in every worker"].append(num_images / bare(root, num_images, SIZE_PX, client))
        rates["stages shard and encode"].append(num_images / through_the_stages(recipe, root, client))
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    show(f"TAEF2, {num_images} photographs at {SIZE_PX} px, {precision(root)}, {WORKERS} processes", rates)
    return {"stage_over_model": statistics.median(ratios), "stage_images_per_s": statistics.median(rates.popitem()[1])}


def race_d4m(folder: Path, num_images: int, root: Path, client: Any) -> dict[str, Any]:
    """Part 2: images/s of the stages against D4M's way, both with a small random AutoencoderKL."""
    weights = save_small_autoencoder(root.parent / "autoencoder-kl")
    recipe, rates = recipe_of(folder, weights), defaultdict(list)
    through_the_stages(recipe, root, client)
    for _ in range(ROUNDS):
        rates["D4M's way"].append(num_images / in_a_process_of_its_own(folder / "train", weights, SIZE_PX, WORKERS))
        rates["stages shard and encode"].append(num_images / through_the_stages(recipe, root, client))
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    show(f"small AutoencoderKL, {num_images} photographs at {SIZE_PX} px, {precision(root)}, {WORKERS} cores", rates)
    return {"speedup_over_d4m": statistics.median(ratios), "latent_error": stored_error(root, folder, weights)}


def stored_error(root: Path, folder: Path, weights: Path) -> float:
    """‖z − z₃₂‖ / ‖z₃₂‖ of stored latents against float32's of the same files."""
    import zarr

    from ddoq_core.encode.autoencoder import encode, load_autoencoder
    from ddoq_core.images import preprocess
    from storage.sources.pictures import decode

    [store] = root.glob("encode/*/latents.zarr")
    group, model = zarr.open_group(store, mode="r"), load_autoencoder(weights)
    parts: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for name in sorted(group.group_keys()):
        files = sorted((folder / "train" / name).iterdir())[:20]
        pixels = np.stack([preprocess(decode(file.read_bytes()), SIZE_PX) for file in files])
        stored = np.asarray(zarr.open_array(store / name / "latents", mode="r")[: len(files)], np.float32)
        parts.append((stored, encode(model, pixels, dtype=np.float32)))
    z, exact = (np.concatenate(side) for side in zip(*parts, strict=True))
    return float(np.linalg.norm(z - exact) / np.linalg.norm(exact))


def measure_memory(few: Path, all_of_it: Path, root: Path) -> dict[str, Any]:
    """Part 3: peak memory of a fresh worker process that encodes all images, against one that encodes some."""
    weights, peaks = save_small_autoencoder(root.parent / "autoencoder-kl"), {}
    for name, folder in (("few", few), ("all", all_of_it)):
        with workers() as client:
            through_the_stages(recipe_of(folder, weights, 32), root, client)
        [record] = root.glob("encode/*/record.json")
        peaks[name] = json.loads(record.read_text())["peak_bytes"]
    mib = {name: f"{peak / 2**20:.0f} MiB" for name, peak in peaks.items()}
    console.print(f"peak memory of the largest worker process: {mib}")
    return {"memory_growth": peaks["all"] / peaks["few"]}


def precision(root: Path) -> str:
    """The floating-point type that was chosen."""
    [file] = root.glob("autoencoder/*/model/precision.json")
    return str(json.loads(file.read_text())["precision"])


def show(title: str, rates: dict[str, list[float]]) -> None:
    """A table of images/s."""
    table = Table("", "images/s, median", "lowest", "highest", title=title, title_justify="left")
    for row, values in rates.items():
        table.add_row(row, *(f"{f(values):.1f}" for f in (statistics.median, min, max)))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="part 1 once on all of ImageNette, 9,469 photographs")
    parser.add_argument("--only", choices=["model", "d4m", "memory"], help="one part alone")
    args = parser.parse_args()
    if not TAEF2.is_dir():
        raise SystemExit(f"needs photographs and TAEF2's weights in {SHARED}: set DDOQ_SHARED to where they are")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, prefect_server(Path(scratch)) as server:
        folder, root = Path(scratch) / "images", Path(scratch) / "runs"
        server.wait()
        num_images = write_folder(folder, None if args.whole else PER_CLASS)
        if args.whole:
            with workers() as client:
                seconds = through_the_stages(recipe_of(folder, TAEF2), root, client)
            result = {"images": num_images, "seconds": seconds, "images_per_s": num_images / seconds}
        else:
            with workers() as client:
                if args.only in (None, "model"):
                    result |= race_the_model(folder, num_images, root, client)
                if args.only in (None, "d4m"):
                    result |= race_d4m(folder, num_images, root, client)
            if args.only in (None, "memory"):
                few, whole = Path(scratch) / "few", Path(scratch) / "whole"
                write_folder(few, 100)
                write_folder(whole, None)
                result |= measure_memory(few, whole, root)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
