"""Teachers that must not be used, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

from ddoq_core.train.accuracy import accuracy, best_reordering, predict
from tasks import teacher, view
from tasks.inputs.given import WeightsError
from tasks.inputs.models import load_classifier
from tasks.recipe.settings import TeacherConfig
from tasks.teacher import check_teacher
from tests.tasks.conftest import Pipeline, complete

CONFIG = TeacherConfig(architecture="resnet18", weights="checkpoint.pt")


def check(order: list[int], skill: float, num_images: int = 1000) -> None:
    """Check a teacher that is right with this probability, if its classes were not in this order."""
    rng, num_classes = np.random.default_rng(0), len(order)
    truth = np.arange(num_images) % num_classes
    guess = np.where(rng.random(num_images) < skill, truth, rng.integers(0, num_classes, num_images))
    logits = np.eye(num_classes, dtype=np.float32)[np.array(order)[guess]]
    check_teacher(CONFIG, accuracy(logits, truth).top1, best_reordering(logits, truth), num_classes, num_images)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_a_teacher_that_knows_is_used(num_classes: int) -> None:
    check(list(range(num_classes)), 0.9)


@pytest.mark.parametrize("order", [[1, 0], [3, 1, 4, 0, 2], [0, 9, 1, 2, 3, 4, 5, 6, 7, 8], [1, 0, *range(2, 10)]])
def test_a_teacher_with_its_classes_in_another_order_is_refused(order: list[int]) -> None:
    with pytest.raises(WeightsError, match=r"checkpoint\.pt.*% with its classes in another order"):
        check(order, 0.95)


@pytest.mark.parametrize(("num_classes", "num_images"), [(2, 1000), (10, 1000), (10, 40), (100, 1000)])
def test_a_teacher_near_chance_is_refused_and_not_for_its_order(num_classes: int, num_images: int) -> None:
    with pytest.raises(WeightsError, match=rf"chance is {1 / num_classes:.1%}"):
        check(list(range(num_classes)), 0.005, num_images)


def test_a_weak_teacher_above_chance_is_used() -> None:
    check(list(range(10)), 0.35)


def test_several_teachers_answer_with_the_mean_of_their_logits(pipeline: Pipeline) -> None:
    """As in G-VBSM's relabelling. The first member is the teacher that it would be alone."""
    recipe = pipeline.recipe.with_changes({"teacher.others": ["convnet-1-8", "convnet-1-8"], "teacher.min_gain": 0})
    training = complete(view.plan(recipe, pipeline.shard, "train"))
    config = recipe.teacher.members
    members = [complete(teacher.plan(recipe, pipeline.shard, training, member)) for member in config]
    assert len({member.digest for member in members}) == 3, "equal architectures begin from seeds of their own"
    alone = pipeline.recipe.with_changes({"teacher.min_gain": 0})
    assert members[0].digest == teacher.plan(alone, pipeline.shard, training).artifact.digest
    joined = complete(teacher.plan_ensemble(recipe, pipeline.shard, members))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    each = np.stack([predict(load_classifier(member), images) for member in members])
    np.testing.assert_allclose(predict(load_classifier(joined), images), each.mean(0), rtol=1e-5, atol=1e-5)
    handed_on = alone.with_changes(
        {
            "teacher": {
                "architecture": recipe.teacher.architecture,
                "others": recipe.teacher.others,
                "weights": str(joined.path / "model" / "model.safetensors"),
                "min_gain": 0,
            }
        }
    )
    again = complete(teacher.plan(handed_on, pipeline.shard, None))
    np.testing.assert_array_equal(predict(load_classifier(again), images), predict(load_classifier(joined), images))


def test_one_checkpoint_starts_one_teacher() -> None:
    with pytest.raises(ValueError, match="a checkpoint starts one network"):
        TeacherConfig(architecture="resnet18", others=("resnet34",), start="weights.pt")
