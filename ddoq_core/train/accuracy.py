"""What a classifier gets right on real images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import nn

from ddoq_core.devices import sent
from ddoq_core.images import to_unit
from ddoq_core.train.networks import Classifier
from ddoq_core.train.pictures import let_go


@dataclass(frozen=True)
class Accuracy:
    """Fractions of images that are classified right; per_class is top-1 in label order."""

    top1: float
    top5: float
    per_class: list[float]


@torch.inference_mode()
def predict(model: Classifier, images: NDArray[np.uint8], batch_size: int = 256) -> NDArray[np.float32]:
    """Logits (n, C) of images (n, S, S, 3) uint8, which may be mapped from a file."""
    parts = []
    for k in range(0, len(images), batch_size):
        x = sent(torch.from_numpy(images[k : k + batch_size]), model.mean.device)  # (B, S, S, 3)
        parts.append(model(to_unit(x)).cpu())
        let_go(images)
    return np.asarray(torch.cat(parts).numpy())


def features(model: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the last linear layer of a classifier sees of images (n, S, S, 3) uint8, (n, d)."""
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu()))
    try:
        predict(model, images)
    finally:
        hook.remove()
    return np.asarray(torch.cat(seen).numpy())


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Accuracy:
    """Accuracy of logits (n, C) against labels (n,)."""
    ranked = np.argsort(-logits, axis=1)
    hit = ranked[:, 0] == labels
    per_class = [float(hit[labels == c].mean()) for c in range(logits.shape[1]) if (labels == c).any()]
    top5 = (ranked[:, :5] == labels[:, None]).any(1)
    return Accuracy(float(hit.mean()), float(top5.mean()), per_class)


def best_reordering(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The top-1 accuracy that logits (n, C) would have if their classes stood in the best order for labels (n,).

    Much more than the accuracy as they are: the network knows the classes in another order.
    """
    num_classes = logits.shape[1]
    confusion = np.bincount(labels * num_classes + logits.argmax(1), minlength=num_classes**2)
    rows, columns = linear_sum_assignment(confusion.reshape(num_classes, num_classes), maximize=True)
    return float(confusion.reshape(num_classes, num_classes)[rows, columns].sum() / len(labels))
