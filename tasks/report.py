"""Stage report: accuracies with their spread, what was distilled, how far it is from the data, and at what cost."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.names import without_places
from tasks.inputs.cached import made_once
from tasks.inputs.distilled import Distilled
from tasks.inputs.models import load_autoencoder
from tasks.inputs.plan import Work
from tasks.inputs.real import read_images
from tasks.inputs.stores import (
    MEASURES,
    MOST_CLASSES,
    REPORT,
    distilled_set,
    index_of,
    indexed,
    latents_of,
    samples_of,
    some_classes,
)
from tasks.pages.costs import ledger
from tasks.pages.differences import differences, mean_of
from tasks.pages.figures import accuracy_by_method
from tasks.pages.findings import remarks
from tasks.pages.render import render
from tasks.pages.traces import Decode, Read, traces
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import ImageConfig

VERSION = 7
MOST_PICTURES = 20  # of a class, shown per method
TEMPLATE = "report.html.j2"


def plan(recipe: Recipe, parents: Mapping[str, Artifact], root: Path) -> Work:
    """The report on all methods, from the stages evaluate ("method/architecture/seed", and "tune/…" on training images
    kept for choosing, if any), measure ("measure/method/seed") and, where there is one, sample."""
    artifact = Artifact(root, "report", VERSION, {"recipe": recipe.identity()}, parents)
    return Work(artifact, report, (recipe,), gpu=recipe.quantises)


@task(task_run_name="report-{artifact.digest}")
@made_once
def report(artifact: Artifact, recipe: Recipe) -> State | str:
    """Write report.html, results.csv, results.json, differences.json and the figures."""
    clock = Clock()
    with clock("read"):
        rows = results(artifact, recipe)
        decoded = {method: decoded_of(artifact, recipe, method) for method in recipe.methods}
        galleries = [gallery(pictures, recipe, method) for method, pictures in decoded.items()]
    with clock("compute"):
        traced = traces(decoded, *_looks(artifact, recipe.images.for_training)) if recipe.quantises else []
        figure, sure = accuracy_by_method(rows), differences(rows, recipe.questions)
        page = _render(artifact, recipe, rows, sure, galleries, traced, figure)
    with artifact.writing(REPORT, clock) as folder:
        (folder / "report.html").write_text(page)
        (folder / "results.png").write_bytes(figure)
        contact_sheet(galleries[0]).save(folder / "pictures.png")
        (folder / "results.json").write_text(json.dumps(rows, indent=1))
        (folder / "differences.json").write_text(json.dumps(sure, indent=1))
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
    scores = [artifact.parents[f"{method}/{architecture}/{seed}"].record().facts for seed in recipe.seeds]
    chosen_by = [artifact.parents.get(f"tune/{method}/{architecture}/{seed}") for seed in recipe.seeds]
    measures = [artifact.parents[f"measure/{method}/{seed}"].record().facts for seed in recipe.seeds]
    top1 = [float(score["top1"]) for score in scores]
    return {
        "method": method,
        "architecture": architecture,
        "ipc": recipe.ipc,
        "weights": str(recipe.settings_of(method).weights),
        "num_seeds": len(top1),
        "top1_mean": fmean(top1),
        "top1_std": stdev(top1) if len(top1) > 1 else 0.0,
        "top1": top1,
        **({"tune_mean": fmean(kept.record().facts["top1"] for kept in chosen_by if kept)} if all(chosen_by) else {}),
        **{name: mean_of(measure[name] for measure in measures) for name in MEASURES},
    }


def preferred(rows: list[dict[str, Any]]) -> str | None:
    """The method whose students know most of the training images that were kept for choosing, None without any."""
    kept = [row for row in rows if "tune_mean" in row]
    return max(kept, key=lambda row: row["tune_mean"])["method"] if kept else None


def decoded_of(artifact: Artifact, recipe: Recipe, method: str) -> Artifact:
    """The decode artifact of a method's first seed."""
    key = f"{method}/{recipe.train.architectures[0]}/{recipe.seeds[0]}"
    return artifact.parents[key].parents["train"].parents["decode"]


def gallery(decoded: Artifact, recipe: Recipe, method: str) -> dict[str, Any]:
    """The pictures of a method with their weights, class by class, to be shown."""
    weights = recipe.settings_of(method).weights
    shown = distilled_set(decoded, weights, some_classes(index_of(decoded)))
    return {"method": method, "weights": weights, "classes": list(_classes(shown)), "px": shown.images.shape[1]}


def _looks(artifact: Artifact, images: ImageConfig) -> tuple[Read, Decode]:
    """How training images of rows are read, and latents decoded by the autoencoder alone."""
    import torch

    from ddoq_core.decode.decoder import Decoder
    from ddoq_core.devices import best_device
    from ddoq_core.memory import batch_size

    encode = artifact.ancestor("encode")
    shard, index = indexed(encode.parents["shard"])
    side = latents_of(encode).shape_of(index.classes[0])[1:]
    model = load_autoencoder(encode.parents["autoencoder"])
    decoder = Decoder(model, None, images.size_px, batch_size(best_device(), *side))
    return (
        lambda rows: read_images(shard, index, rows, images),
        lambda z: decoder.pictures(torch.from_numpy(z)),
    )


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


def _classes(distilled: Distilled) -> Iterator[dict[str, Any]]:
    pictures, w = distilled.images, distilled.weights
    for label in np.unique(distilled.labels):
        rows = np.flatnonzero(distilled.labels == label)[:MOST_PICTURES]
        most = float(w[rows].max())
        shown = [
            {
                "picture": pictures[k],
                "png": _png(pictures[k]),
                "centroid": int(distilled.centroids[k]),
                "weight": f"{w[k]:.2f}",
                "height": round(100 * float(w[k]) / most),
            }
            for k in rows
        ]
        yield {"name": distilled.classes[label], "pictures": shown}


def _render(
    artifact: Artifact,
    recipe: Recipe,
    rows: list[dict[str, Any]],
    sure: list[dict[str, Any]],
    galleries: list[dict[str, Any]],
    traced: list[dict[str, Any]],
    figure: bytes,
) -> str:
    sample = artifact.parents.get("sample")
    return render(
        TEMPLATE,
        recipe=recipe,
        rows=rows,
        differences=sure,
        preferred=preferred(rows),
        galleries=galleries,
        traces=traced,
        shown_of={method: lane["key"] for lane in traced for method in lane["methods"]},
        figure=base64.b64encode(figure).decode(),
        costs=list(ledger(artifact)),
        models=_models(artifact),
        data=_data(artifact),
        samples=sample.record().facts if sample else None,
        sampled=dict(_sampled(sample)) if sample else {},
        settings=json.dumps(without_places(recipe.model_dump(mode="json")), indent=1),
        versions=next(iter(artifact.parents.values())).record().versions,
        shown=(MOST_CLASSES, MOST_PICTURES),
    )


def _models(artifact: Artifact) -> list[str]:
    """What is known of the models that this result rests on."""
    facts = {ancestor.stage: ancestor.record().facts for ancestor in artifact.ancestors()}
    lines = []
    if "teacher" in facts:
        lines.append(f"Teacher: top-1 {facts['teacher']['top1']:.1%} on held-out real images.")
    if "psnr_db" in facts.get("autoencoder", {}):
        lines.append(f"Autoencoder: {facts['autoencoder']['psnr_db']:.1f} dB PSNR on held-out real images.")
    return lines


def _data(artifact: Artifact) -> list[str]:
    """What to know of the images."""
    return remarks(artifact.ancestor("shard").record().facts)


def _sampled(sample: Artifact) -> Iterator[tuple[str, dict[str, list[str]]]]:
    for name in some_classes(index_of(sample)):
        kept = samples_of(sample).read_class(name)
        yield name, {kind: [_png(picture) for picture in pictures] for kind, pictures in kept.items()}


def _png(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
