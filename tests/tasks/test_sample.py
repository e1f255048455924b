"""The stage sample: what the prior draws from noise, judged by the teacher."""

from __future__ import annotations

import numpy as np
import pytest

from ddoq_core.train.accuracy import predict
from ddoq_core.train.networks import load_classifier
from tasks import sample
from tasks.inputs.real import read_images
from tasks.inputs.stores import samples_of
from tests.tasks.conftest import Pipeline, complete


def test_samples_are_kept_by_class_with_the_share_that_is_recognised(pipeline: Pipeline) -> None:
    artifact = complete(sample.plan(pipeline.recipe, pipeline.encode, pipeline.models))
    facts, teacher = artifact.record().facts, load_classifier(pipeline.teacher.path / "model")
    assert len(facts["recognised"]) == 10 and facts["per_class"] == sample.PER_CLASS
    for label, name in enumerate(pipeline.index.classes):
        pictures = samples_of(artifact).read_class(name)["images"]
        assert pictures.shape == (sample.SHOWN, 8, 8, 3) and pictures.dtype == np.uint8
        assert pictures.std() > 0
        shown = (predict(teacher, pictures).argmax(1) == label).sum() / sample.PER_CLASS
        assert shown <= facts["recognised"][label] <= shown + 1 - sample.SHOWN / sample.PER_CLASS


def test_what_is_drawn_is_measured_against_held_out_images_as_real_ones_are(pipeline: Pipeline) -> None:
    """This prior of 30 steps draws nothing that the teacher knows; real images are as near as they can be."""
    artifact = complete(sample.plan(pipeline.recipe, pipeline.encode, pipeline.models))
    facts = artifact.record().facts
    drawn, real = facts["drawn"], facts["real"]
    assert drawn["recognised"] == pytest.approx(np.mean(facts["recognised"]))
    assert real["recognised"] > drawn["recognised"] and drawn["frechet"] > 2 * real["frechet"] > 0
    assert drawn["precision"] < real["precision"] and drawn["recall"] < real["recall"]
    warned = f"{drawn['recognised']:.1%} of what it draws and {real['recognised']:.1%} of real images"
    assert warned in facts["warning"] and "prior.train.num_steps" in facts["warning"]


def test_the_closest_picture_is_kept_beside_its_training_image(pipeline: Pipeline) -> None:
    artifact = complete(sample.plan(pipeline.recipe, pipeline.encode, pipeline.models))
    rows = pipeline.index.rows("train", "3")
    training = read_images(pipeline.shard, pipeline.index, rows, pipeline.recipe.images.for_training)
    _, real = samples_of(artifact).read_class("3")["closest"]
    assert (training == real).all((1, 2, 3)).any()
    assert artifact.record().facts["closest"] > 0.1


def test_a_prior_is_too_weak_below_half_of_what_is_recognised_of_real_images() -> None:
    assert sample.weakness(0.45, 0.9) is None and sample.weakness(0.44, 0.9) is not None


def test_samples_do_not_depend_on_what_is_distilled(pipeline: Pipeline) -> None:
    other = pipeline.recipe.with_changes({"ipc": 7, "decode.strength": 0.1, "weights": "mass"})
    plans = [sample.plan(recipe, pipeline.encode, pipeline.models) for recipe in (pipeline.recipe, other)]
    assert plans[0].artifact.digest == plans[1].artifact.digest
