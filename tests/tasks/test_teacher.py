"""Teachers that must not be used, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

from ddoq_core.train.accuracy import accuracy, best_reordering
from tasks.inputs.given import WeightsError
from tasks.recipe.settings import TeacherConfig
from tasks.teacher import check_teacher

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
