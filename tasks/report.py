"""Stage report: accuracies with their spread, what was distilled, how far it is from the data, and at what cost."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from prefect import State, task

from storage.artifact import Artifact, Record
from storage.clock import Clock
from storage.index import Index
from tasks.cluster import prototypes_of
from tasks.config import STAGES, Recipe, Weighting
from tasks.distilled import distilled_set
from tasks.encode import latents_of
from tasks.findings import remarks
from tasks.outcome import cached
from tasks.samples import PER_CLASS, Samples, draw_samples
from tasks.shard import indexed

VERSION = 2
FOLDER = "report"
MOST_CLASSES, MOST_PICTURES = 20, 20  # shown per method
TEMPLATE = Path(__file__).with_name("report.html.j2")


@task(task_run_name="report-{artifact.digest}")
def report(artifact: Artifact, recipe: Recipe) -> State | str:
    """Write report.html, results.csv, results.json and the figures."""
    if artifact.is_done():
        return cached(artifact)
    clock = Clock()
    with clock("read"):
        rows = results(artifact, recipe)
        galleries = [gallery(decoded_of(artifact, recipe, method), recipe, method) for method in recipe.methods]
    with clock("compute"):
        figure, samples = _figure(rows), draw_samples(artifact.parents, recipe, MOST_CLASSES)
        page = _render(artifact, recipe, rows, galleries, figure, samples)
    facts = {"samples_recognised": samples.recognised.tolist()} if samples else {}
    with artifact.writing(FOLDER, clock, facts) as folder:
        (folder / "report.html").write_text(page)
        (folder / "results.png").write_bytes(figure)
        contact_sheet(galleries[0]).save(folder / "pictures.png")
        (folder / "results.json").write_text(json.dumps(rows, indent=1))
        with (folder / "results.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [key for key in rows[0] if key != "top1"])
            writer.writeheader()
            writer.writerows({k: v for k, v in row.items() if k != "top1"} for row in rows)
    return str(artifact)


def results(artifact: Artifact, recipe: Recipe) -> list[dict[str, Any]]:
    """A row per method and student architecture: top-1 of each seed, mean, standard deviation, W2 and n_eff."""
    return [
        _row(artifact, recipe, method, architecture)
        for method in recipe.methods
        for architecture in recipe.train.architectures
    ]


def _row(artifact: Artifact, recipe: Recipe, method: str, architecture: str) -> dict[str, Any]:
    from ddoq_core import effective_sample_size

    scores = [artifact.parents[f"{method}/{architecture}/{seed}"] for seed in recipe.seeds]
    top1 = [float(score.record().facts["top1"]) for score in scores]
    _, _, weights = recipe.settings_of(method)
    draws = {str(d): d for d in (score.parents["train"].parents["decode"] for score in scores)}.values()
    decoded = next(iter(draws))
    _, index = indexed(_shard_of(decoded))
    _, labels, w = distilled_set(decoded, index, weights)
    return {
        "method": method,
        "architecture": architecture,
        "ipc": recipe.ipc,
        "weights": str(weights),
        "num_seeds": len(top1),
        "top1_mean": fmean(top1),
        "top1_std": stdev(top1) if len(top1) > 1 else 0.0,
        "top1": top1,
        "w2": fmean(_mean_w2(draw, index, weights) for draw in draws),
        "n_eff": fmean(effective_sample_size(w[labels == c]) for c in range(len(index.classes))),
    }


def _mean_w2(decoded: Artifact, index: Index, weights: Weighting) -> float:
    """W2 in latent space between a class and its weighted points (centroids, or the real images that stand for
    them), mean over the classes that are shown."""
    from ddoq_core import class_weights
    from ddoq_core.wasserstein import w2

    prototypes = decoded.parents["cluster"]
    latents = latents_of(prototypes.parents["encode"])
    distances = []
    for name in index.classes[:MOST_CLASSES]:
        z = latents.read_class(name)
        flat = z.reshape(len(z), -1)
        found = prototypes_of(prototypes).read_class(name)
        medoids = decoded.config["method"] == "medoid"
        points = flat[found["medoids"]] if medoids else found["centroids"].reshape(len(found["centroids"]), -1)
        distances.append(w2(flat, points, class_weights(found["counts"], weights)))
    return fmean(distances)


def decoded_of(artifact: Artifact, recipe: Recipe, method: str) -> Artifact:
    """The decode artifact of a method's first seed."""
    key = f"{method}/{recipe.train.architectures[0]}/{recipe.seeds[0]}"
    return artifact.parents[key].parents["train"].parents["decode"]


def gallery(decoded: Artifact, recipe: Recipe, method: str) -> dict[str, Any]:
    """The pictures of a method with their weights, class by class, to be shown."""
    _, index = indexed(_shard_of(decoded))
    _, _, weights = recipe.settings_of(method)
    pictures, labels, w = distilled_set(decoded, index, weights)
    return {"method": method, "weights": weights, "classes": list(_classes(index, pictures, labels, w))}


def contact_sheet(gallery: dict[str, Any]) -> Image.Image:
    """A row of pictures per class, each with its weight below."""
    rows = [cls["pictures"] for cls in gallery["classes"]]
    tile, step, line = 64, 70, 84
    sheet = Image.new("RGB", (step * max(map(len, rows)) + 6, line * len(rows) + 6), "white")
    pen = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, shown in enumerate(row):
            left, top = 6 + step * x, 6 + line * y
            sheet.paste(Image.fromarray(shown["picture"]).resize((tile, tile), Image.Resampling.NEAREST), (left, top))
            pen.text((left + tile / 2, top + tile + 8), shown["weight"], fill="#444", anchor="mm", font_size=11)
    return sheet


def _classes(
    index: Index, pictures: NDArray[np.uint8], labels: NDArray[np.int64], w: NDArray[np.float64]
) -> Iterator[dict[str, Any]]:
    for label, name in enumerate(index.classes[:MOST_CLASSES]):
        rows = np.flatnonzero(labels == label)[:MOST_PICTURES]
        most = float(w[rows].max())
        shown = [
            {
                "picture": pictures[k],
                "png": _png(pictures[k]),
                "weight": f"{w[k]:.2f}",
                "height": round(100 * float(w[k]) / most),
            }
            for k in rows
        ]
        yield {"name": name, "pictures": shown}


def _render(
    artifact: Artifact,
    recipe: Recipe,
    rows: list[dict[str, Any]],
    galleries: list[dict[str, Any]],
    figure: bytes,
    samples: Samples | None,
) -> str:
    from jinja2 import Environment

    costs = list(_costs(artifact))
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE.read_text())
    return template.render(
        recipe=recipe,
        rows=rows,
        galleries=galleries,
        figure=base64.b64encode(figure).decode(),
        costs=costs,
        models=_models(artifact),
        data=_data(artifact),
        samples=samples,
        per_class=PER_CLASS,
        sampled=[[_png(picture) for picture in row] for row in samples.pictures] if samples else [],
        settings=json.dumps(recipe.model_dump(mode="json"), indent=1),
        versions=next(iter(artifact.parents.values())).record().versions,
        shown=(MOST_CLASSES, MOST_PICTURES),
    )


def _costs(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """What each stage of this result took when it was made."""
    by_stage: dict[str, dict[str, Record]] = {}
    for ancestor in _ancestors(artifact):
        by_stage.setdefault(ancestor.stage, {})[ancestor.digest] = ancestor.record()
    for stage in STAGES:
        records = list(by_stage.get(stage, {}).values())
        if records:
            yield {
                "stage": stage,
                "artifacts": len(records),
                "units": sum(len(r.units) for r in records),
                **{k: round(sum(r.seconds.get(k, 0.0) for r in records), 2) for k in ("read", "compute", "write")},
                "peak_mib": max(r.peak_bytes for r in records) >> 20,
                "digests": ", ".join(sorted(r.digest for r in records)[:4]) + (" …" if len(records) > 4 else ""),
            }


def _models(artifact: Artifact) -> list[str]:
    """What is known of the models that this result rests on."""
    facts = {ancestor.stage: ancestor.record().facts for ancestor in _ancestors(artifact)}
    lines = []
    if "teacher" in facts:
        lines.append(f"Teacher: top-1 {facts['teacher']['top1']:.1%} on held-out real images.")
    if "psnr_db" in facts.get("autoencoder", {}):
        lines.append(f"Autoencoder: {facts['autoencoder']['psnr_db']:.1f} dB PSNR on held-out real images.")
    return lines


def _data(artifact: Artifact) -> list[str]:
    """What to know of the images."""
    return remarks(next(a for a in _ancestors(artifact) if a.stage == "shard").record().facts)


def _ancestors(artifact: Artifact) -> Iterator[Artifact]:
    for parent in artifact.parents.values():
        yield parent
        yield from _ancestors(parent)


def _shard_of(decoded: Artifact) -> Artifact:
    return decoded.parents["cluster"].parents["encode"].parents["shard"]


def _png(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _figure(rows: list[dict[str, Any]]) -> bytes:
    """PNG of the accuracy with its spread, and W2, by method."""
    from matplotlib.figure import Figure

    names = [f"{r['method']}\n{r['architecture']}" for r in rows]
    figure = Figure(figsize=(9, 0.6 * len(rows) + 1.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(names, [100 * r["top1_mean"] for r in rows], xerr=[100 * r["top1_std"] for r in rows], color="#4878a8")
    left.set_xlabel("top-1 accuracy, % (mean ± std over seeds)")
    left.set_xlim(max(0, 100 * min(r["top1_mean"] - 2 * r["top1_std"] for r in rows) - 5), 100)
    right.barh(names, [r["w2"] or 0 for r in rows], color="#a85448")
    right.set_xlabel("W2 to the class, mean over classes")
    left.invert_yaxis()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
