"""How well students of an exported set did, and the command by which anyone finds it again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from storage.artifact import Artifact
from tasks.inputs.runs import KeptRun
from tasks.inputs.stores import REPORT, rows_of_report
from tasks.recipe.recipe import Recipe

JUDGING = ("data", "images", "teacher", "train")  # what of a recipe decides how a given set does


def scores_of(run: KeptRun, method: str, root: Path) -> list[dict[str, Any]]:
    """Of each student of a method its top-1 with the 95 % interval over the seeds; none of a run without a report."""
    from ddoq_core.measure.statistics import interval_of

    if REPORT not in run.artifacts:
        return []
    found = []
    for row in rows_of_report(Artifact.open(root / run.artifacts[REPORT])):
        if row["method"] == method:
            half = interval_of(row["top1"]).half if len(row["top1"]) > 1 else None
            told = {"student": row["architecture"], "top-1": row["top1_mean"], "95 % interval, half": half}
            found.append({**told, "seeds": len(row["top1"])})
    return found


def command_of(recipe: Recipe, usual: Recipe | None, teacher: str | None = None) -> str:
    """The command that scores a set in the current folder as this recipe does: what it changes in the usual one of its
    name is set. Paths are those of the reader, of which only the last part is told.

    teacher  where in that folder the teacher's weights are, if they are there
    """
    own, plain = (r.model_dump(mode="json", include=set(JUDGING)) if r else {} for r in (recipe, usual))
    changes = dict(_changes(own, plain))
    if teacher:
        changes = {k: v for k, v in changes.items() if not k.startswith("teacher.")}
        changes |= {"teacher.architecture": recipe.teacher.architecture, "teacher.weights": teacher}
        changes |= {"teacher.others": list(recipe.teacher.others)} if recipe.teacher.others else {}
    if recipe.minutes is not None:  # the lengths are told
        changes = {"minutes": None, **recipe.lengths, **changes}
    sets = [part for name, value in changes.items() for part in ("--set", f"{name}={_told(value)}")]
    return shlex.join(
        ["ddoq", "evaluate", recipe.name, "--given", "it=.", "--seeds", str(max(2, len(recipe.seeds))), *sets]
    )


def _changes(own: dict[str, Any], usual: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in own.items():
        before = usual.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            found += _changes(value, before, f"{above}{name}.")
        elif value != before:
            found.append((f"{above}{name}", value))
    return found


def _told(value: Any) -> str:
    if isinstance(value, str):
        return Path(value).name if value.startswith(("/", "~", ".")) else value
    return json.dumps(value)
