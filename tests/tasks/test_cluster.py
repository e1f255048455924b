"""The stage cluster: one class after the other, many at once as on a GPU, and large ones in blocks."""

from __future__ import annotations

import numpy as np
import pytest

from ddoq_core import quantize
from storage.artifact import Artifact
from storage.errors import UsageError
from tasks import cluster
from tasks.inputs.plan import Work
from tasks.inputs.stores import latents_of, prototypes_of
from tests.tasks.conftest import Pipeline, complete

NAMES = tuple("0123456789")


def work_of(pipeline: Pipeline, seed: int) -> Work:
    return cluster.plan(pipeline.recipe.with_changes({"cluster.num_starts": 4}), "ddoq", seed, pipeline.encode)


def inertias(artifact: Artifact) -> np.ndarray:
    found = [artifact.mark(name) for name in NAMES]
    return np.array([mark.facts["w2"][0] ** 2 for mark in found if mark])


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


@pytest.fixture
def in_blocks(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Work:
    """The work of a recipe, one of whose classes, "8", is too small for blocks."""
    monkeypatch.setattr(cluster, "IMAGES_IN_MEMORY", pipeline.index.counts("train")["8"])
    return work_of(pipeline, 4)


def test_large_classes_are_quantised_in_blocks_as_well_as_in_memory(pipeline: Pipeline, in_blocks: Work) -> None:
    assert [batch.packs for batch in in_blocks.batches] == [(name,) for name in NAMES]
    assert in_blocks.shares and not in_blocks.gpu
    artifact = complete(in_blocks)
    facts = {name: mark.facts for name, mark in artifact.marks().items()}
    assert {name for name in NAMES if facts[name]["quantised"] == "in memory"} == {"8"}
    in_memory = []
    for name in NAMES:
        found, z = prototypes_of(artifact).read_class(name), latents_of(pipeline.encode).read_class(name)
        in_memory.append(quantize(z.reshape(len(z), -1), 3, num_starts=4).inertia / len(z))
        gap = z.astype(np.float64) - found["centroids"][found["assignment"]]
        assert facts[name]["w2"] == [pytest.approx(np.sqrt(np.square(gap).sum() / len(z)), rel=1e-4)]
        np.testing.assert_array_equal(np.bincount(found["assignment"]), found["counts"])
    np.testing.assert_allclose(inertias(artifact).mean(), np.mean(in_memory), rtol=0.02)  # so few ask for single moves


def test_a_large_class_that_is_gone_is_made_anew_the_same(in_blocks: Work) -> None:
    artifact = complete(in_blocks)
    before = artifact.mark("3")
    artifact.forget("3")
    assert not artifact.is_done()
    complete(in_blocks)
    after = artifact.mark("3")
    assert before and after and after.files != before.files and after.content == before.content


def test_what_is_made_in_blocks_is_another_artifact(pipeline: Pipeline, in_blocks: Work) -> None:
    assert in_blocks.artifact.config["in_memory"] == pipeline.index.counts("train")["8"]
    assert "in_memory" not in pipeline.cluster.config


def test_balanced_cells_of_a_large_class_are_refused(pipeline: Pipeline, in_blocks: Work) -> None:
    recipe = pipeline.recipe.with_changes({"cluster.method": "balanced"})
    with pytest.raises(UsageError, match=r"cluster.method=balanced takes classes of at most \d+ images, and one has"):
        cluster.plan(recipe, "ddoq", 0, pipeline.encode)
