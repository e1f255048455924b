"""Training of classifiers on real images, and their accuracy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ddoq_core.devices import mixed_precision
from ddoq_core.fitting import Checkpoint, Loss, fit, one_cycle, weight_decay_groups
from ddoq_core.images import to_unit
from ddoq_core.train.augment import apply, draw
from ddoq_core.train.networks import Classifier
from ddoq_core.train.protocol import Protocol
from ddoq_core.train.stored_labels import batch_of, num_batches


@dataclass(frozen=True)
class Accuracy:
    """Fractions of images that are classified right; per_class is top-1 in label order."""

    top1: float
    top5: float
    per_class: list[float]


def train_teacher(
    model: Classifier,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    protocol: Protocol,
    seed: int,
    checkpoint: Checkpoint,
) -> list[float]:
    """Fit a classifier to real images (n, S, S, 3) by cross entropy, ending in eval mode. Returns losses."""
    device = model.mean.device
    x, y = to_unit(images).to(device), torch.from_numpy(labels).to(device)
    augmentation = replace(protocol.augmentation, cutmix=False)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = batch_of(step, len(x), protocol.batch_size, seed)
        batch = apply(x[chosen], draw(len(chosen), x.shape[-1], augmentation, generator))
        with mixed_precision(device):
            return F.cross_entropy(model(batch), y[chosen])

    per_epoch = num_batches(len(x), protocol.batch_size)
    optimizer = torch.optim.AdamW(weight_decay_groups(model, protocol.weight_decay), protocol.learning_rate)
    schedule = one_cycle(optimizer, protocol.learning_rate, protocol.num_epochs * per_epoch)
    return fit_classifier(model, loss, protocol.num_epochs * per_epoch, optimizer, schedule, seed, checkpoint)


def fit_classifier(
    model: Classifier,
    loss: Loss,
    num_steps: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    seed: int,
    checkpoint: Checkpoint,
) -> list[float]:
    """Fit a classifier, which is in eval mode afterwards. See ddoq_core.fitting.fit."""
    model.train()
    losses = fit(loss, num_steps, model=model, optimizer=optimizer, schedule=schedule, seed=seed, checkpoint=checkpoint)
    model.eval()
    return losses


@torch.inference_mode()
def predict(model: Classifier, images: NDArray[np.uint8], batch_size: int = 256) -> NDArray[np.float32]:
    """Logits (n, C) of images (n, S, S, 3) uint8."""
    parts = [
        model(to_unit(images[i : i + batch_size]).to(model.mean.device)).cpu()
        for i in range(0, len(images), batch_size)
    ]
    return np.asarray(torch.cat(parts).numpy())


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
