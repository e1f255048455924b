"""Training of classifiers on real images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ddoq_core.devices import mixed_precision, sent
from ddoq_core.fitting import Checkpoint, Loss, fit, one_cycle, weight_decay_groups
from ddoq_core.train.augment import apply, draw
from ddoq_core.train.batches import batch_of
from ddoq_core.train.networks import Classifier
from ddoq_core.train.pictures import Pictures
from ddoq_core.train.protocol import Protocol, num_batches


def train_teacher(
    model: Classifier,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    protocol: Protocol,
    seed: int,
    checkpoint: Checkpoint,
) -> list[float]:
    """Fit a classifier to real images (n, S, S, 3) by cross entropy, ending in eval mode. Returns losses.

    The images may be mapped from a file: a batch of them alone is in memory.
    """
    device, network = model.mean.device, model.compiled()
    pictures, y = Pictures(images, device), torch.from_numpy(labels).to(device)
    augmentation = replace(protocol.augmentation, cutmix=False)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = batch_of(step, len(pictures), protocol.batch_size, seed)
        batch = apply(pictures.batch(rows), draw(len(rows), pictures.size_px, augmentation, generator))
        with mixed_precision(device, strides=model.has_strides):
            return F.cross_entropy(network(batch), y[sent(rows, device)])

    per_epoch = num_batches(len(pictures), protocol.batch_size)
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
