"""The stage cluster: one class after the other, and many at once as on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from storage.artifact import Artifact
from tasks import cluster
from tasks.inputs.plan import Work
from tasks.inputs.stores import prototypes_of
from tests.tasks.conftest import Pipeline, complete

NAMES = tuple("0123456789")


def work_of(pipeline: Pipeline, seed: int) -> Work:
    return cluster.plan(pipeline.recipe.with_changes({"cluster.num_starts": 4}), "ddoq", seed, pipeline.encode)


def inertias(artifact: Artifact) -> np.ndarray:
    found = [artifact.mark(name) for name in NAMES]
    return np.array([mark.facts["w2"] ** 2 for mark in found if mark])


def test_classes_together_are_quantised_as_well_as_one_by_one(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = inertias(complete(work_of(pipeline, 1)))
    work = work_of(pipeline, 2)
    monkeypatch.setattr(cluster, "quantises_together", lambda config: config.method == "exact")
    monkeypatch.setattr(cluster, "IMAGES_TOGETHER", 500)  # so that there are groups of several classes
    together = inertias(complete(work))
    np.testing.assert_allclose(together.mean(), alone.mean(), rtol=0.02)
    for name in NAMES:
        found = prototypes_of(work.artifact).read_class(name)
        assert found["counts"].sum() == len(found["assignment"]) == pipeline.index.counts("train")[name]
        np.testing.assert_array_equal(np.bincount(found["assignment"]), found["counts"])


def test_of_classes_together_the_missing_one_is_made_alone(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "quantises_together", lambda config: True)
    work = work_of(pipeline, 3)
    artifact = complete(work)
    before, kept = prototypes_of(artifact).read_class("7"), artifact.mark("8")
    artifact.forget("7")
    assert not artifact.is_done()
    complete(work)
    assert artifact.mark("8") == kept
    for name, value in prototypes_of(artifact).read_class("7").items():
        np.testing.assert_allclose(value, before[name], rtol=1e-5, atol=1e-5)
