"""Stage report: accuracies with their spread, what was distilled, how far it is from the data, and at what cost."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.index import Index
from tasks.inputs.cached import cached
from tasks.inputs.stores import distilled_set
from tasks.measure import MEASURES, MOST_CLASSES
from tasks.pages.costs import ancestors, ledger
from tasks.pages.findings import remarks
from tasks.pages.render import png_of, render
from tasks.recipe.settings import Recipe
from tasks.sample import PER_CLASS, Samples, draw_samples
from tasks.shard import indexed

VERSION = 3
FOLDER = "report"
MOST_PICTURES = 20  # of a class, shown per method
TEMPLATE = "report.html.j2"


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
    scores = [artifact.parents[f"{method}/{architecture}/{seed}"].record().facts for seed in recipe.seeds]
    measures = [artifact.parents[f"measure/{method}/{seed}"].record().facts for seed in recipe.seeds]
    top1 = [float(score["top1"]) for score in scores]
    return {
        "method": method,
        "architecture": architecture,
        "ipc": recipe.ipc,
        "weights": str(recipe.settings_of(method)[2]),
        "num_seeds": len(top1),
        "top1_mean": fmean(top1),
        "top1_std": stdev(top1) if len(top1) > 1 else 0.0,
        "top1": top1,
        **{name: fmean(measure[name] for measure in measures) for name in MEASURES},
    }


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
    return render(
        TEMPLATE,
        recipe=recipe,
        rows=rows,
        galleries=galleries,
        figure=base64.b64encode(figure).decode(),
        costs=list(ledger(artifact.parents.values())),
        models=_models(artifact),
        data=_data(artifact),
        samples=samples,
        per_class=PER_CLASS,
        sampled=[[_png(picture) for picture in row] for row in samples.pictures] if samples else [],
        settings=json.dumps(recipe.model_dump(mode="json"), indent=1),
        versions=next(iter(artifact.parents.values())).record().versions,
        shown=(MOST_CLASSES, MOST_PICTURES),
    )


def _models(artifact: Artifact) -> list[str]:
    """What is known of the models that this result rests on."""
    facts = {ancestor.stage: ancestor.record().facts for ancestor in ancestors(artifact.parents.values())}
    lines = []
    if "teacher" in facts:
        lines.append(f"Teacher: top-1 {facts['teacher']['top1']:.1%} on held-out real images.")
    if "psnr_db" in facts.get("autoencoder", {}):
        lines.append(f"Autoencoder: {facts['autoencoder']['psnr_db']:.1f} dB PSNR on held-out real images.")
    return lines


def _data(artifact: Artifact) -> list[str]:
    """What to know of the images."""
    return remarks(next(a for a in ancestors(artifact.parents.values()) if a.stage == "shard").record().facts)


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
    right.barh(names, [r["w2"] for r in rows], color="#a85448")
    right.set_xlabel("W2 to the class, mean over classes")
    left.invert_yaxis()
    return png_of(figure)
