"""The Prefect flow of a comparison: many methods at several numbers of images per class, one protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from pydantic import PositiveInt

from flows.causes import cause_in_state
from flows.dag import comparison
from flows.distill import carry_out, publish_stages
from flows.run import Run, link
from flows.runners import dask_runner
from tasks.compare import FOLDER
from tasks.inputs.runs import keep_run
from tasks.recipe.matrix import Matrix, check_changes
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import COMPARE


@flow(name=COMPARE, task_runner=dask_runner(), flow_run_name="compare-{recipe.name}")
@cause_in_state
def compare(
    recipe: Recipe,
    matrix: Matrix | None = None,
    ipc: list[PositiveInt] | None = None,
    changes: dict[str, Any] | None = None,
    root: str = "runs",
) -> dict[str, Any]:
    """Compare the cells of a matrix, quantisers × weights × pictures, under the recipe's protocol.

    matrix   what is compared; the usual one if not given
    ipc      images per class, instead of the matrix's
    changes  other settings of the recipe, dotted: {"decode.strength": 0.4}
    root     the folder of all artifacts, shared with `distill`
    """
    matrix = matrix or Matrix()
    if ipc:
        matrix = Matrix.model_validate({**matrix.model_dump(), "ipc": ipc})
    check_changes(changes or {})
    recipe = recipe.with_changes(changes or {})
    run = Run(Path(root), recipe)
    (artifact, named), rows = carry_out(run, lambda: comparison(run, recipe, matrix))
    folder = link(run.root / recipe.name, COMPARE, artifact) / FOLDER
    for num, artifacts in named.items():
        keep_run(run.root / recipe.name, matrix.recipe(recipe, num), artifacts, f"{COMPARE}-{num}")
    artifact.check(FOLDER)
    tables = json.loads((folder / "results.json").read_text())
    publish_stages(run, rows)
    run.publish(create_table_artifact, tables["results"], key=run.key("comparison"), description=recipe.name)
    return {"stages": rows, **tables, "report": str(folder / "compare.html")}
