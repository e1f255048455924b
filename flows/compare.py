"""The Prefect flow of a comparison: many methods at several numbers of images per class, one protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.catalogue import changed, matrix_of
from flows.causes import cause_in_state
from flows.dag import comparison
from flows.distill import carry_out, publish_stages
from flows.run import Run, link
from flows.runners import dask_runner
from tasks.compare import FOLDER
from tasks.inputs.runs import keep_run
from tasks.recipe.matrix import Matrix, check_changes
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import COMPARE, Count, Minutes, Seed, Text


@flow(name=COMPARE, task_runner=dask_runner(), flow_run_name="compare-{recipe.name}")
@cause_in_state
def compare(
    recipe: Recipe,
    matrix: Matrix | None = None,
    ipc: Count | list[Count] | None = None,
    data: Text | None = None,
    minutes: Minutes | None = None,
    seeds: tuple[Seed, ...] | None = None,
    changes: dict[str, Any] | None = None,
    root: str = "runs",
) -> dict[str, Any]:
    """Compare the cells of a matrix, quantisers × weights × pictures, under the recipe's protocol.

    Args:
        recipe: all settings; a deployment has its own
        matrix: what is compared; the usual one if not given
        ipc: images per class, one number or several, instead of the matrix's
        data: where the images are, instead of the recipe's data.path
        minutes: about how long one of its runs would take; the models that are trained get as many steps as fit
        seeds: instead of the matrix's, e.g. [0, 1, 2]
        changes: other settings of the recipe, dotted: {"decode.strength": 0.4}
        root: the folder of all artifacts, shared with `distill`
    """
    asked = {"ipc": [ipc] if isinstance(ipc, int) else ipc, "seeds": seeds}
    matrix = matrix_of({**(matrix or Matrix()).model_dump(), **{name: own for name, own in asked.items() if own}})
    check_changes(changes or {})
    recipe = changed(recipe, changes, data=data, minutes=minutes)
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
