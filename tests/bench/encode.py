"""Encoding against its limits: reading and the bare autoencoder, D4M's way, full decoding of JPEG, and memory.

    uv run python -m tests.bench.encode            # all parts; the last line is JSON
    uv run python -m tests.bench.encode --whole    # once through all of ImageNette, for the record

The stages run as in a run: by their flows, with a Prefect server and Dask's single-threaded worker processes, one per
core, on photographs in a class folder. They are timed as wall time of the flows, the worker processes being up.

The floor of encoding is processes / (t_read + t_model) images/s, both measured in the same worker processes, all at
once, on one thread each: t_read is what opening and resizing takes for an image of the same files, t_model the bare
autoencoder on batches that are ready, in the same floating-point type and layout. The stage's rate is
(N − n) / (T_N − T_n): what the flow encode takes for the same classes with only n images in all is its start-up (the
flow, a task per class, marks, record) and is taken off. `stage_over_floor` is that rate by the floor, the median of
the rounds, at the worse of two sizes: one where reading counts, one where the model does. Rounds alternate.

D4M's way is re-stated from the description of its code (arXiv 2407.15138); there shard and encode count together, from
nothing, start-up and all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
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
FLOOR_PER_CLASS = {32: 900, SIZE_PX: 100}  # by size in pixels
FEW_PER_CLASS = 4
SHARE_PIXELS = 2**21  # of the images that a worker process reads, and encodes bare
KEYS = ("cert", "key")
ROUNDS = 3
WORKERS = num_cores()
TAEF2 = SHARED / "weights/taef2"
console = Console(width=120)


@contextmanager
def workers() -> Iterator[Any]:
    """A Dask cluster as a run starts it, whose processes stay up between the stages, and its client."""
    import dask
    from dask.distributed import Client

    from flows.runners import local_cluster

    with local_cluster(WORKERS) as cluster, Client(cluster) as client:
        keys = {f"distributed.comm.tls.client.{name}": getattr(client.security, f"tls_client_{name}") for name in KEYS}
        with dask.config.set({"distributed.comm.tls.ca-file": client.security.tls_ca_file, **keys}):
            yield client  # flows meet it by its address, with its own keys


def recipe_of(folder: Path, autoencoder: Path, size_px: int = SIZE_PX) -> Recipe:
    """The recipe `folder` on these images, with these weights."""
    weights = json.dumps({"weights": str(autoencoder)})
    every_once = ["data.tune_fraction=0", "prior.train.flip=false"]  # else some are left out, and others mirrored too
    settings = [f"data.path={folder}", f"images.size_px={size_px}", f"autoencoder={weights}", "ipc=1", *every_once]
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


def encode_alone(recipe: Recipe, root: Path, client: Any) -> float:
    """Seconds of encode, of whose latents there are none; what it reads is complete."""
    shutil.rmtree(root / "encode", ignore_errors=True)
    return run_stages(recipe, root, client, "encode")


def in_every_worker(share: Callable[..., float], client: Any, *arguments: Any) -> float:
    """What `share` returns, the mean of all worker processes at once; each is told which of how many it is."""
    addresses = list(client.scheduler_info(n_workers=-1)["workers"])
    futures = [
        client.submit(share, *arguments, k, len(addresses), workers=[at], pure=False) for k, at in enumerate(addresses)
    ]
    return statistics.mean(client.gather(futures))


def _read_share(root: str, size_px: int, k: int, parts: int) -> float:
    """Seconds per image of opening files and bringing them to size."""
    from ddoq_core.images import preprocess
    from storage.artifact import Artifact
    from tasks.inputs.real import source_of
    from tasks.inputs.stores import indexed

    [folder] = Path(root).glob("shard/*")
    shard, index = indexed(Artifact.open(folder))
    rows = index.rows("train")[k::parts]
    found = list(index.locations(rows[: SHARE_PIXELS // size_px**2]))
    source = source_of(shard)
    start = time.perf_counter()
    for location in found:
        preprocess(source.open(location), size_px)
    return (time.perf_counter() - start) / len(found)


def _model_share(root: str, size_px: int, k: int, parts: int) -> float:
    """Seconds per image of the autoencoder alone."""
    import torch

    from storage.artifact import Artifact
    from tasks.inputs.models import load_encoder

    [folder] = Path(root).glob("autoencoder/*")
    model = load_encoder(Artifact.open(folder))
    size = model.batch_size(size_px)
    x = torch.rand(size, 3, size_px, size_px).contiguous(memory_format=torch.channels_last)
    batches = SHARE_PIXELS // size_px**2 // size
    with torch.inference_mode():
        model.posterior(x)
        start = time.perf_counter()
        for _ in range(batches):
            model.posterior(x)
    return (time.perf_counter() - start) / (batches * size)


def race_the_floor(size_px: int, scratch: Path, client: Any) -> dict[str, float]:
    """Part 1: images/s of the stage encode against its floor, with TAEF2 at one size."""
    some, few = (recipe_of(scratch / f"{name}-{size_px}", TAEF2, size_px) for name in ("some", "few"))
    more = write_folder(Path(some.data.path or ""), FLOOR_PER_CLASS[size_px])
    more -= write_folder(Path(few.data.path or ""), FEW_PER_CLASS)
    root, small = scratch / "runs", scratch / "runs-few"
    through_the_stages(few, small, client)  # workers import what they need
    through_the_stages(some, root, client)  # files come into the cache
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        found["t_read_ms"].append(1e3 * in_every_worker(_read_share, client, str(root), size_px))
        found["t_model_ms"].append(1e3 * in_every_worker(_model_share, client, str(root), size_px))
        found["startup_s"].append(encode_alone(few, small, client))
        seconds = encode_alone(some, root, client) - found["startup_s"][-1]
        found["stage_images_per_s"].append(more / seconds)
        floor = 1e3 * WORKERS / (found["t_read_ms"][-1] + found["t_model_ms"][-1])
        found["floor_images_per_s"].append(floor)
        found["stage_over_floor"].append(more / seconds / floor)
    show(f"TAEF2, {more} photographs at {size_px} px, {precision(root)}, {WORKERS} processes", found)
    return {name: round(statistics.median(values), 4) for name, values in found.items()}


def race_d4m(folder: Path, num_images: int, root: Path, client: Any) -> dict[str, Any]:
    """Part 2: images/s of the stages against D4M's way, both with a small random AutoencoderKL."""
    weights = save_small_autoencoder(root.parent / "autoencoder-kl")
    recipe, rates = recipe_of(folder, weights), defaultdict(list)
    through_the_stages(recipe, root, client)
    for _ in range(ROUNDS):
        rates["D4M's way, images/s"].append(
            num_images / in_a_process_of_its_own(folder / "train", weights, SIZE_PX, WORKERS)
        )
        rates["stages shard and encode, images/s"].append(num_images / through_the_stages(recipe, root, client))
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    show(f"small AutoencoderKL, {num_images} photographs at {SIZE_PX} px, {precision(root)}, {WORKERS} cores", rates)
    return {"speedup_over_d4m": statistics.median(ratios), "latent_error": stored_error(root, folder, weights)}


def stored_error(root: Path, folder: Path, weights: Path) -> float:
    """‖z − z₃₂‖ / ‖z₃₂‖ of stored latents against float32's of the same files."""
    import zarr

    from ddoq_core.encode.autoencoder import encode, load_autoencoder
    from ddoq_core.images import preprocess
    from storage.sources.pictures import read_picture

    [store] = root.glob("encode/*/latents.zarr")
    group, model = zarr.open_group(store, mode="r"), load_autoencoder(weights)
    parts: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for name in sorted(group.group_keys()):
        files = sorted((folder / "train" / name).iterdir())[:20]
        pixels = np.stack([preprocess(read_picture(file.read_bytes()), SIZE_PX) for file in files])
        stored = np.asarray(zarr.open_array(store / name / "latents", mode="r")[: len(files)], np.float32)
        parts.append((stored, encode(model, pixels, dtype=np.float32)))
    z, exact = (np.concatenate(side) for side in zip(*parts, strict=True))
    return float(np.linalg.norm(z - exact) / np.linalg.norm(exact))


def compare_jpeg(folder: Path) -> dict[str, dict[str, float]]:
    """Part 3: encode.jpeg=reduced against full decoding, by size: seconds to read, PSNR in dB, latents' distance."""
    import torch

    from ddoq_core.encode.autoencoder import encode, load_autoencoder
    from ddoq_core.images import preprocess
    from storage.sources.pictures import read_picture

    torch.set_num_threads(WORKERS)
    model, found = load_autoencoder(TAEF2), {}
    data = [file.read_bytes() for file in sorted(folder.glob("train/*/*"))[::10]]
    for size_px in (32, 64, 112):
        seconds, pixels = [], []
        for least_px in (None, None, size_px):  # once to warm up
            start = time.perf_counter()
            pixels.append(np.stack([preprocess(read_picture(d, least_px=least_px), size_px) for d in data]))
            seconds.append(time.perf_counter() - start)
        mse = np.square(pixels[2].astype(np.float64) - pixels[1]).mean(axis=(1, 2, 3))
        exact, z = (encode(model, images, dtype=np.float32) for images in pixels[1:])
        found[str(size_px)] = {
            "read_speedup": seconds[1] / seconds[2],
            "psnr_db": float(np.mean(10 * np.log10(255**2 / np.maximum(mse, 1e-12)))),
            "latent_error": float(np.linalg.norm(z - exact) / np.linalg.norm(exact)),
        }
    return found


def measure_memory(few: Path, all_of_it: Path, root: Path) -> dict[str, Any]:
    """Part 4: peak memory of a fresh worker process that encodes all images, against one that encodes some."""
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
    """A table of what the rounds gave."""
    table = Table("", "median", "lowest", "highest", title=title, title_justify="left")
    for row, values in rates.items():
        table.add_row(row, *(f"{f(values):.2f}" for f in (statistics.median, min, max)))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="shard and encode once on all of ImageNette")
    parser.add_argument("--only", choices=["floor", "d4m", "jpeg", "memory"], help="one part alone")
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
                if args.only in (None, "floor"):
                    sizes = {str(size): race_the_floor(size, Path(scratch), client) for size in FLOOR_PER_CLASS}
                    result = {"stage_over_floor": min(f["stage_over_floor"] for f in sizes.values()), "by_px": sizes}
                if args.only in (None, "d4m"):
                    result |= race_d4m(folder, num_images, root, client)
            if args.only in (None, "jpeg"):
                result["reduced_jpeg"] = compare_jpeg(folder)
            if args.only in (None, "memory"):
                few, whole = Path(scratch) / "few", Path(scratch) / "whole"
                write_folder(few, 100)
                write_folder(whole, None)
                result |= measure_memory(few, whole, root)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
