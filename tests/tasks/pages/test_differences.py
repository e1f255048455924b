"""The questions of a report, on accuracies whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from flows.catalogue import load_recipe
from tasks.pages.differences import differences
from tasks.recipe.recipe import Recipe

GAINS = {"ddoq": 0.05, "ddoq-mass": 0.04, "d4m": 0.02, "no-prior": -0.1, "medoids": 0.03, "random": 0.0}


def recipe_of(*seeds: int) -> Recipe:
    return load_recipe("digits").with_changes({"seeds": seeds})


def test_every_method_is_asked_about() -> None:
    against_random = {(name, "random") for name in GAINS if name != "random"}
    against_medoids = {(name, "medoids") for name in ("ddoq", "ddoq-mass", "d4m", "no-prior")}
    assert set(recipe_of(0).questions) == against_random | against_medoids | {("ddoq", "d4m")}
    folder = load_recipe("folder").questions
    assert ("chosen", "random") in folder and ("ddoq", "chosen") in folder and ("chosen", "chosen") not in folder
    alone = load_recipe("digits").with_changes({"methods": {"ddoq": {}, "other": {"weights": "mass"}}})
    assert alone.questions == []


def test_known_differences_are_found_and_corrected() -> None:
    rng = np.random.default_rng(0)
    seeds = rng.normal(0.5, 0.05, 5)  # what a seed adds to all
    rows = [
        {"method": name, "architecture": "convnet-3-32", "top1": list(seeds + gain + rng.normal(0, 1e-3, 5))}
        for name, gain in GAINS.items()
    ]
    found = {row["question"]: row for row in differences(rows, recipe_of(0).questions)}
    assert found["ddoq − random"]["mean"] == pytest.approx(0.05, abs=2e-3) and found["ddoq − random"]["significant"]
    assert found["ddoq − d4m"]["low"] < 0.03 < found["ddoq − d4m"]["high"]
    assert all(row["p_holm"] >= row["p"] for row in found.values())
    one_seed = [{**row, "top1": row["top1"][:1]} for row in rows]
    assert differences(one_seed, recipe_of(0).questions) == []
