"""Pictures without prototypes through the stages: real images at random, and sets that were made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.artifact import Artifact
from tasks import decode, measure, train
from tasks.inputs.real import read_images
from tasks.inputs.stores import distilled_set, images_of, own_labels
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import ImageConfig
from tests.tasks.conftest import Pipeline, complete

IPC, SIDE = 3, 8
LABELS = np.arange(10 * IPC) % 10
PICTURES = np.random.default_rng(0).integers(0, 256, (10 * IPC, SIDE, SIDE, 3), dtype=np.uint8)
WEIGHTS = np.linspace(0.5, 1.5, 10 * IPC)
LOGITS = np.random.default_rng(1).normal(size=(10 * IPC, 10)).astype(np.float32)
LOGITS[range(10 * IPC), LABELS] += 9


def given(path: Path, **fields: Any) -> dict[str, Any]:
    """The method of a set that is written there."""
    held = {"images": torch.from_numpy(PICTURES), "labels": torch.from_numpy(LABELS), **fields}
    torch.save(held, path)
    return {"decode": {"method": "given", "path": str(path), "class_order": "sorted"}}


def recipe_of(pipeline: Pipeline, method: dict[str, Any]) -> Recipe:
    return pipeline.recipe.with_changes({"methods": {"it": method}, "ipc": IPC, "train.num_epochs": 2})


def pictures_of(pipeline: Pipeline, recipe: Recipe, seed: int = 0) -> Artifact:
    return complete(decode.plan(recipe, "it", seed, pipeline.shard, {}))


def test_random_images_are_real_ones_without_replacement(pipeline: Pipeline) -> None:
    recipe = recipe_of(pipeline, {"decode": {"method": "random"}})
    made = [pictures_of(pipeline, recipe, seed) for seed in (0, 1)]
    assert made[0].digest != made[1].digest
    real = read_images(pipeline.shard, pipeline.index, pipeline.index.rows("train", "4"), ImageConfig(size_px=SIDE))
    drawn = images_of(made[0]).read_array("4", "images")
    at = [np.flatnonzero((real == picture).all((1, 2, 3))).tolist() for picture in drawn]
    assert all(at) and len({rows[0] for rows in at}) == IPC
    assert not np.array_equal(drawn, images_of(made[1]).read_array("4", "images"))
    assert distilled_set(made[0], "uniform").weights.tolist() == [1.0] * 10 * IPC


def test_a_given_set_comes_as_it_is_in_our_order(pipeline: Pipeline, tmp_path: Path) -> None:
    more = {"weights": torch.from_numpy(WEIGHTS), "logits": torch.from_numpy(LOGITS)}
    method = given(tmp_path / "set.pt", **more)
    order = "9,8,7,6,5,4,3,2,1,0"  # what the set calls 0 is our 9
    method["decode"]["class_order"] = order
    recipe = recipe_of(pipeline, method)
    made = pictures_of(pipeline, recipe)
    found, rows = distilled_set(made, "given"), np.argsort(9 - LABELS, kind="stable")
    np.testing.assert_array_equal(found.images, PICTURES[rows])
    np.testing.assert_array_equal(found.weights, WEIGHTS[rows])
    np.testing.assert_array_equal(own_labels(made), LOGITS[rows][:, ::-1])
    assert distilled_set(made, "uniform").weights.tolist() == [1.0] * 10 * IPC
    again = decode.plan(recipe, "it", 1, pipeline.shard, {})
    assert again.artifact.digest == made.digest, "for every seed the same"
    facts = complete(measure.plan(recipe, "it", 0, pipeline.shard, made)).record().facts
    assert facts["w2"] is None and facts["gradient"] > 0 and facts["n_eff"] < IPC


def test_another_size_is_brought_to_ours_and_kept_in_mind(pipeline: Pipeline, tmp_path: Path) -> None:
    large = torch.from_numpy(PICTURES.repeat(2, 1).repeat(2, 2))
    made = pictures_of(pipeline, recipe_of(pipeline, given(tmp_path / "set.pt", images=large)))
    import zarr

    group = zarr.open_group(images_of(made).path / "0", mode="r")
    assert group.attrs["given_px"] == [[2 * SIDE, 2 * SIDE]]
    assert group["images"].shape == (IPC, SIDE, SIDE, 3)


def test_what_is_made_of_it_is_made_anew_where_it_changes(pipeline: Pipeline, tmp_path: Path) -> None:
    recipe = recipe_of(pipeline, given(tmp_path / "set.pt"))
    before = decode.plan(recipe, "it", 0, pipeline.shard, {})
    given(tmp_path / "set.pt", images=torch.from_numpy(255 - PICTURES))
    assert decode.plan(recipe, "it", 0, pipeline.shard, {}).artifact.digest != before.artifact.digest
    with pytest.raises(ValueError, match="has changed since the run began"):
        complete(before)


def test_a_student_learns_from_own_labels_or_the_teachers(pipeline: Pipeline, tmp_path: Path) -> None:
    method = given(tmp_path / "set.pt", logits=torch.from_numpy(LOGITS))

    def losses(labels: str) -> list[float]:
        recipe = recipe_of(pipeline, {"decode": {**method["decode"], "labels": labels}})
        judge = {"teacher": pipeline.teacher} if labels == "teacher" else {}
        labelled = {"decode": pictures_of(pipeline, recipe), **judge}
        student = complete(train.plan(recipe, "it", "convnet-1-8", 0, pipeline.shard, labelled))
        assert student.config["labels"] == {"own": "own", "teacher": "online"}[labels]
        return list(student.record().facts["losses"])

    assert losses("own") != losses("teacher")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"decode": {"method": "random"}, "weights": "mass"}, "weights='mass' of the method 'it': take uniform"),
        ({"decode": {"method": "given", "path": "x"}, "weights": "sqrt"}, "take given or uniform"),
        ({"weights": "given"}, "weights='given' of the method 'it' are of given sets"),
    ],
)
def test_weights_that_need_cells_are_refused_without_such(
    method: dict[str, Any], message: str, pipeline: Pipeline
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_of(pipeline, method)
