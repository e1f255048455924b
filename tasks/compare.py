"""Stage compare: the cells of a matrix beside each other, with what is sure about their differences, and the cost."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.names import without_places
from tasks.inputs.cached import made_once
from tasks.inputs.plan import Work
from tasks.inputs.stores import MEASURES, MOST_CLASSES, index_of
from tasks.pages.costs import ledger, seconds
from tasks.pages.differences import mean_of
from tasks.pages.effects import effects
from tasks.pages.figures import figures
from tasks.pages.findings import remarks
from tasks.pages.paper import beside
from tasks.pages.render import render
from tasks.recipe.cells import RANDOM_IMAGES, Cell
from tasks.recipe.matrix import Matrix
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import COMPARE

VERSION = 3
FOLDER = "comparison"
TEMPLATE = "compare.html.j2"
Row = dict[str, Any]


def plan(recipe: Recipe, matrix: Matrix, parents: Mapping[str, Artifact], root: Path) -> Work:
    """The comparison, from the stages evaluate ("ipc/method/architecture/seed") and measure
    ("ipc/measure/method/seed")."""
    settings = {"recipe": recipe.identity(), "matrix": matrix.model_dump(mode="json")}
    return Work(Artifact(root, COMPARE, VERSION, settings, parents), compare, (recipe, matrix))


@task(task_run_name="compare-{artifact.digest}")
@made_once
def compare(artifact: Artifact, recipe: Recipe, matrix: Matrix) -> State | str:
    """Write compare.html and its tables: scores (a row per seed), results (per cell), differences, cost."""
    clock = Clock()
    with clock("read"):
        scores = list(_scores(artifact, recipe, matrix))
        costs = list(ledger(artifact))
    with clock("compute"):
        tables = {
            "scores": scores,
            "results": list(summaries(scores)),
            "differences": list(_differences(scores, matrix)),
            "cost": costs,
        }
        drawn = figures(tables["results"])
        page = _page(artifact, recipe, matrix, tables, drawn)
    with artifact.writing(FOLDER, clock) as folder:
        (folder / "compare.html").write_text(page)
        (folder / "results.json").write_text(json.dumps(tables, indent=1))
        for name, rows in tables.items():
            table = pa.Table.from_pylist(rows)
            pa_csv.write_csv(table, folder / f"{name}.csv")
            pq.write_table(table, folder / f"{name}.parquet")
        for name, png in drawn.items():
            (folder / f"{name}.png").write_bytes(png)
    return str(artifact)


def _scores(artifact: Artifact, recipe: Recipe, matrix: Matrix) -> Iterator[Row]:
    """A row per cell, student and seed."""
    for ipc in matrix.ipc:
        for name, cell in matrix.cells(ipc).items():
            for architecture in recipe.train.architectures:
                for seed in matrix.seeds:
                    score = artifact.parents[f"{ipc}/{name}/{architecture}/{seed}"]
                    measured = artifact.parents[f"{ipc}/measure/{name}/{seed}"].record().facts
                    student, facts = score.parents["train"], score.record().facts
                    decoded = student.parents["decode"]
                    yield {
                        "ipc": ipc,
                        "cell": name,
                        **cell._asdict(),
                        "architecture": architecture,
                        "seed": seed,
                        "top1": facts["top1"],
                        "top5": facts["top5"],
                        **{measure: measured[measure] for measure in MEASURES},
                        "distil_seconds": sum(seconds(a) for a in (decoded, *_prototypes(decoded))),
                        "train_seconds": seconds(student),
                        "images": str(decoded),
                        "student": str(student),
                    }


def _prototypes(decoded: Artifact) -> list[Artifact]:
    return [decoded.parents["cluster"]] if "cluster" in decoded.parents else []


def summaries(scores: list[Row]) -> Iterator[Row]:
    """A row per cell and student, at each number of images per class and student the best first: mean top-1, its
    standard deviation and 95 % interval over the seeds, and means of the rest; ior is the gain over random images,
    unweighted, of the same seeds (DD-Ranking's improvement over random), with the interval of the paired difference."""
    from ddoq_core.measure.statistics import interval_of, paired_difference

    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in scores:
        groups.setdefault((row["ipc"], row["architecture"], row["cell"]), []).append(row)
    at = {key: np.array([row["top1"] for row in rows]) for key, rows in groups.items()}
    for key in sorted(groups, key=lambda key: (*key[:2], -at[key].mean())):
        rows, top1, random = groups[key], at[key], at.get((*key[:2], RANDOM_IMAGES.name))
        interval = interval_of(top1.tolist())
        gain = None if random is None or key[2] == RANDOM_IMAGES.name else paired_difference(top1, random)[0]
        yield {
            **{k: rows[0][k] for k in ("ipc", "cell", *Cell._fields, "architecture")},
            "num_seeds": len(rows),
            "top1_mean": interval.mean,
            "top1_std": float(np.std(top1, ddof=1)),
            "top1_low": interval.low,
            "top1_high": interval.high,
            "top1_half": interval.half,
            "top5_mean": fmean(row["top5"] for row in rows),
            **{k: mean_of(row[k] for row in rows) for k in (*MEASURES, "distil_seconds", "train_seconds")},
            "ior": None if random is None else interval.mean - float(random.mean()),
            "ior_low": gain and gain.low,
            "ior_high": gain and gain.high,
        }


def _differences(scores: list[Row], matrix: Matrix) -> Iterator[Row]:
    for ipc in matrix.ipc:
        for architecture in dict.fromkeys(row["architecture"] for row in scores):
            groups: dict[Cell, list[Row]] = {}
            for row in scores:
                if (row["ipc"], row["architecture"]) == (ipc, architecture):
                    groups.setdefault(Cell(*(row[k] for k in Cell._fields)), []).append(row)
            values = {cell: np.array([row["top1"] for row in rows]) for cell, rows in groups.items()}
            students = {cell: [row["student"] for row in rows] for cell, rows in groups.items()}
            for found in effects(values, matrix.levels, students):
                yield {"ipc": ipc, "architecture": architecture, **found}


def _page(artifact: Artifact, recipe: Recipe, matrix: Matrix, tables: dict[str, list[Row]], drawn: Any) -> str:
    shard, index = artifact.ancestor("shard"), index_of(artifact)
    told = matrix.model_dump(mode="json")
    teacher = next((a.record().facts["top1"] for a in artifact.ancestors() if a.stage == "teacher"), None)
    return render(
        TEMPLATE,
        recipe=recipe,
        matrix=matrix,
        results=tables["results"],
        differences=tables["differences"],
        costs=tables["cost"],
        figures={name: base64.b64encode(png).decode() for name, png in drawn.items()},
        data=remarks(shard.record().facts),
        num_val=len(index.rows("val")),
        teacher=teacher,
        published=beside(tables["results"], recipe, index),
        measured_classes=min(MOST_CLASSES, len(index.classes)),
        settings=json.dumps(without_places({"recipe": recipe.model_dump(mode="json"), "matrix": told}), indent=1),
        versions=next(iter(artifact.parents.values())).record().versions,
    )
