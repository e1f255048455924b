"""Accuracy against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddoq_core.train.accuracy import accuracy, best_reordering, features, predict
from ddoq_core.train.networks import ClassifierSpec, build_classifier
from tests.ddoq_core.train.test_teachers import colours


def test_accuracy_by_hand() -> None:
    logits = np.array(
        [[9, 1, 2, 3, 4, 5], [1, 9, 2, 3, 4, 5], [1, 9, 2, 3, 4, 5], [5, 9, 2, 3, 4, 1], [0, 9, 8, 7, 6, 5]], np.float32
    )
    found = accuracy(logits, np.array([0, 1, 5, 5, 0]))
    assert found.top1 == pytest.approx(2 / 5)
    assert found.top5 == pytest.approx(3 / 5)  # the last two labels are ranked sixth
    assert found.per_class == [0.5, 1.0, 0.0]  # classes 0, 1 and 5; the others have no images


def test_accuracy_with_fewer_than_five_classes_has_a_top5_of_one() -> None:
    found = accuracy(np.eye(3, dtype=np.float32)[[1, 2, 0]], np.array([0, 1, 2]))
    assert (found.top1, found.top5) == (0.0, 1.0)


def test_the_best_reordering_by_hand() -> None:
    logits = np.eye(3, dtype=np.float32)[[1, 1, 0, 2, 2, 2]]
    labels = np.array([0, 0, 1, 2, 2, 0])
    assert accuracy(logits, labels).top1 == pytest.approx(2 / 6)
    assert best_reordering(logits, labels) == pytest.approx(5 / 6)  # 0 and 1 exchanged
    assert best_reordering(np.eye(3, dtype=np.float32)[labels], labels) == 1.0


def test_predictions_do_not_depend_on_the_batch_size() -> None:
    images, _ = colours(10)
    model = build_classifier(ClassifierSpec("convnet-2-8", 3, 8)).eval()
    np.testing.assert_allclose(predict(model, images, 3), predict(model, images, 256), atol=1e-5)
    assert predict(model, images).shape == (10, 3)


@pytest.mark.parametrize("architecture", ["convnet-2-8", "test_resnet", "resnetap-10", "test_vit"])
def test_features_are_what_the_last_layer_makes_logits_of(architecture: str) -> None:
    size_px = 160 if architecture == "test_vit" else 32
    model = build_classifier(ClassifierSpec(architecture, 7, size_px)).eval()
    images = np.random.default_rng(0).integers(0, 256, (5, size_px, size_px, 3), dtype=np.uint8)
    last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
    found = features(model, images)
    with torch.inference_mode():
        torch.testing.assert_close(last(torch.from_numpy(found)).numpy(), predict(model, images))
    assert last.in_features == found.shape[1] and not last._forward_pre_hooks
