"""Benchmark of the quantiser: `python -m tests.bench.quantize` prints tables and, last, one line of JSON.

1. Inertia and seconds on one core against scikit-learn's KMeans (20 runs) and faiss (25 iterations).
2. W2 to the class on real latents against D4M's stream with uniform weights, every value confirmed by POT.
3. W2 against K with the effective dimension, and a figure.
4. Many classes at once, on the GPU where there is one, against class by class: seconds and inertia.
5. With --scale, as it takes long and 11 GB of disk: the cluster stage on latents the size of ImageNet-1K.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any, TypeVar

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from ddoq_core import Quantization, class_weights, quantize
from ddoq_core.cluster.batched import quantize_batch
from ddoq_core.cluster.checks import Method
from ddoq_core.cluster.partition import assign
from ddoq_core.devices import best_device
from ddoq_core.measure.wasserstein import w2
from tests.bench import latents
from tests.bench.latents import Latents
from tests.bench.scale import through_the_stage
from tests.bench.w2_curve import draw_curves
from tests.places import REPOSITORY

DIMENSIONS = (4096, 16384)
SIZES = (10, 50, 200)
NUM_RUNS = 20
OURS_EVERY = 5  # our timings are spread among the peer's runs, so that both meet the same machine
RANDOM_SEEDS = range(5)

console = Console(width=150)
Points = NDArray[np.float32]
T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def speed_row(d: int, num_points: int, num_runs: int) -> dict[str, float]:
    """One row of the race at n = 1,300 points in d dimensions, one thread each."""
    z = latents.low_rank(1300, d)
    ours, runs, inertia = [], [], []
    for seed in range(num_runs):
        if seed % OURS_EVERY == 0:
            ours.append(timed(lambda: quantize(z, num_points)))
        seconds, fit = timed(partial(KMeans(num_points, n_init=1, random_state=seed).fit, z))
        runs.append(seconds)
        inertia.append(exact_inertia(z, fit.cluster_centers_))
    index = faiss.Kmeans(d, num_points, niter=25, seed=0, min_points_per_centroid=1)
    faiss_seconds, _ = timed(lambda: index.train(z))
    return {
        "d": d,
        "k": num_points,
        "seconds": median(s for s, _ in ours),
        "inertia": ours[0][1].inertia,
        "best_inertia": min(inertia),
        "all_runs_seconds": sum(runs),
        "fastest_run_seconds": min(runs),
        "faiss_seconds": faiss_seconds,
        "faiss_inertia": exact_inertia(z, np.asarray(index.centroids)),
    }


def exact_inertia(z: Points, centroids: Points) -> float:
    """The inertia as we measure ours, so that no peer's rounding decides."""
    centre = z.mean(axis=0)
    return float(assign(z - centre, centroids - centre)[1].sum(dtype=np.float64))


def race(num_runs: int) -> dict[str, float]:
    """The race of part 1: all rows as a table, and the worst of each figure."""
    table = Table("d", "K", "inertia / best of runs", "/ faiss", "ours s", f"{num_runs} runs s", "ratio", "1 run s")
    table.add_column("faiss s")
    rows = []
    for d in DIMENSIONS:
        for num_points in SIZES:
            row = speed_row(d, num_points, num_runs)
            rows.append(row)
            table.add_row(
                str(d),
                str(num_points),
                f"{row['inertia'] / row['best_inertia']:.4f}",
                f"{row['inertia'] / row['faiss_inertia']:.4f}",
                f"{row['seconds']:.3f}",
                f"{row['all_runs_seconds']:.2f}",
                f"{row['all_runs_seconds'] / row['seconds']:.1f}",
                f"{row['fastest_run_seconds']:.3f}",
                f"{row['faiss_seconds']:.3f}",
            )
    table.title = f"n = 1,300 low-rank latents, one core; {num_runs} runs of scikit-learn's KMeans"
    console.print(table)
    large = [r for r in rows if r["d"] == 16384 and r["k"] >= 50]
    return {
        "inertia_over_best20": max(r["inertia"] / r["best_inertia"] for r in rows),
        "inertia_over_faiss": max(r["inertia"] / r["faiss_inertia"] for r in rows),
        "speedup_over_20_runs": min(r["all_runs_seconds"] / r["seconds"] for r in rows),
        "time_over_one_run_d16384_k50": max(r["seconds"] / r["fastest_run_seconds"] for r in large),
    }


def batch_row(num_classes: int, n: int, d: int, num_points: int) -> dict[str, Any]:
    """Part 4: `quantize_batch` on the best device against `quantize` on one core, the same classes and seeds."""
    classes = [latents.low_rank(n, d, seed=c) for c in range(num_classes)]
    seeds = range(num_classes)
    device = best_device()
    quantize_batch(classes[:1], num_points, seeds=seeds[:1], device=device)  # a GPU's first call loads its kernels
    alone_s, alone = timed(lambda: [quantize(z, num_points, seed=s) for z, s in zip(classes, seeds, strict=True)])
    batch_s, batch = timed(lambda: quantize_batch(classes, num_points, seeds=seeds, device=device))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    row = {
        "batch_device": name,
        "batch_seconds": batch_s,
        "batch_speedup": alone_s / batch_s,
        "batch_inertia_over_single": sum(q.inertia for q in batch) / sum(q.inertia for q in alone),
    }
    table = Table("device", "class by class s", "batch s", "ratio", "inertia / class by class")
    table.add_row(
        name, f"{alone_s:.2f}", f"{batch_s:.2f}", f"{alone_s / batch_s:.2f}", f"{row['batch_inertia_over_single']:.4f}"
    )
    table.title = f"{num_classes} classes of n = {n}, d = {d}, K = {num_points}"
    console.print(table)
    return row


def w2_rows(z: Points, num_points: int) -> tuple[dict[str, float], float]:
    """W2 of each baseline to the class z by POT, and the largest relative gap to the free value."""
    methods: tuple[Method, ...] = ("stream-d4m", "stream", "exact", "balanced", "clvq")
    found = {m: quantize(z, num_points, method=m) for m in methods}
    gaps = []

    def weighted(q: Quantization, rule: str) -> float:
        value = w2(z, q.centroids, class_weights(q.counts, rule))
        if rule == "mass":
            gaps.append(abs(value / q.w2 - 1))
        return value

    rows = {f"{m} + {r}": weighted(found[m], r) for m in methods for r in ("uniform", "sqrt", "mass")}
    draws = [quantize(z, num_points, method="random", seed=s) for s in RANDOM_SEEDS]
    rows |= {f"random real + {r}": mean(weighted(q, r) for q in draws) for r in ("uniform", "sqrt", "mass")}
    return rows, max(gaps)


def distances(data: Latents) -> dict[str, Any]:
    """Part 2 for one set of latents: W2 averaged over its classes, and by how much it is below D4M's."""
    sizes = [k for k in (10, 50) if k < min(len(z) for z in data.classes.values())]
    table = Table("centres + weights", title=f"W2 to the class, mean over classes, by POT: {data.name}")
    columns: list[dict[str, float]] = []
    result: dict[str, Any] = {"latents": data.name, "pot_gap": 0.0}
    for num_points in sizes:
        per_class = [w2_rows(z, num_points) for z in data.classes.values()]
        columns.append({row: mean(rows[row] for rows, _ in per_class) for row in per_class[0][0]})
        result["pot_gap"] = max(result["pot_gap"], max(gap for _, gap in per_class))
        result[f"w2_reduction_k{num_points}"] = 1 - columns[-1]["exact + mass"] / columns[-1]["stream-d4m + uniform"]
        table.add_column(f"K = {num_points}", justify="right")
        table.add_column("against D4M", justify="right")
    for row in columns[0]:
        cells = [(c[row], c[row] / c["stream-d4m + uniform"] - 1) for c in columns]
        table.add_row(row, *(text for value, rel in cells for text in (f"{value:.3f}", f"{100 * rel:+.1f} %")))
    console.print(table)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, default=REPOSITORY / ".cache/bench/w2-against-k.png")
    parser.add_argument("--imagenette-per-class", type=int, default=latents.IMAGENETTE.per_class)
    parser.add_argument("--only", choices=["race", "w2", "curve", "batch"], help="one part alone")
    parser.add_argument("--scale", action="store_true", help="part 5 alone")
    parser.add_argument("--scale-classes", type=int, default=1000)
    parser.add_argument("--scale-root", type=Path, default=REPOSITORY / ".cache/bench")
    args = parser.parse_args()
    if args.scale:
        print(json.dumps(through_the_stage(args.scale_root, args.scale_classes, 50, console)))
        return

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    result: dict[str, Any] = {}
    with threadpool_limits(1):
        if args.only in (None, "race"):
            result |= race(NUM_RUNS)
        if args.only in (None, "batch"):
            result |= batch_row(64, 1300, 4096, 50) if best_device().type == "cuda" else batch_row(4, 600, 1024, 20)
        if args.only not in ("race", "batch"):
            sets = latents.real_latents(args.imagenette_per_class)
        if args.only in (None, "w2"):
            parts = [distances(data) for data in sets]
            result |= {key: min(p[key] for p in parts if key in p) for key in parts[0] if key.startswith("w2")}
            result |= {"latents": "; ".join(p["latents"] for p in parts), "w2_by_set": parts}
            result["pot_gap"] = max(p["pot_gap"] for p in parts)
        if args.only in (None, "curve"):
            result["effective_dimension"] = draw_curves(sets, args.figure)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
