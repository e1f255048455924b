"""Training of students on weighted distilled images, and the teacher's labels for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ddoq_core.devices import mixed_precision, sent
from ddoq_core.fitting import Checkpoint, by_epoch, seeded, weight_decay_groups
from ddoq_core.train.augment import apply, draw
from ddoq_core.train.batches import Batch, batch_of
from ddoq_core.train.losses import hard_label_loss, mixed_logits, soft_label_loss
from ddoq_core.train.networks import Classifier
from ddoq_core.train.pictures import Pictures
from ddoq_core.train.protocol import Protocol, num_batches
from ddoq_core.train.stored_labels import StoredLabels, pack_epoch
from ddoq_core.train.teachers import fit_classifier


class DistilledBatches:
    """The distilled images (n, S, S, 3) uint8, and what each step of a training on the device sees of them.

    weights  (n,), for the drawing of pictures where the protocol has them in the sampling
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        weights: NDArray[np.float64],
        protocol: Protocol,
        seed: int,
        device: torch.device,
    ) -> None:
        self.images = Pictures(images, device)
        self.chances = torch.from_numpy(weights) if protocol.weights_in == "sampling" else None
        self.protocol, self.seed = protocol, seed
        self.per_epoch = num_batches(len(images), protocol.batch_size)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """A step's pictures and their augmentation, without labels."""
        rows = batch_of(step, len(self.images), self.protocol.batch_size, self.seed, self.chances)
        draws = draw(len(rows), self.images.size_px, self.protocol.augmentation, generator)
        return Batch(rows, draws)

    def pictures(self, batch: Batch) -> torch.Tensor:
        """The augmented batch (B, 3, S, S) in [0, 1]."""
        return apply(self.images.batch(batch.rows), batch.draws)


def train_student(
    model: Classifier,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    protocol: Protocol,
    teacher: Classifier | StoredLabels | NDArray[np.float32] | None,
    seed: int,
    checkpoint: Checkpoint,
) -> list[float]:
    """Fit a student to distilled images (n, S, S, 3) with labels (n,) and training weights (n,). Returns losses.

    teacher  labels every augmented batch as it is drawn; or labelled them before, by `label_epoch` with this seed and
             protocol; or the pictures' own logits (n, C), which are not augmented with them, but mixed by CutMix; or
             None: the classes are the labels
    L = (1/B) Σ w_i KL_i at temperature T (arXiv 2501.07681, step 5), with classes the weighted cross entropy.
    """
    device, size_px, network = model.mean.device, images.shape[1], model.compiled()
    judge = teacher.compiled() if isinstance(teacher, Classifier) else None
    own = torch.from_numpy(teacher).to(device) if isinstance(teacher, np.ndarray) else None  # (n, C)
    batches = DistilledBatches(images, weights, protocol, seed, device)
    in_loss = weights if protocol.weights_in == "loss" else np.ones(len(images))
    hard_from, hard_until = (round(s * protocol.num_epochs) * batches.per_epoch for s in protocol.hard_phase or (0, 0))
    y, w = torch.from_numpy(labels).to(device), torch.from_numpy(in_loss).float().to(device)  # (n,), (n,)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        batch = teacher.batch(step) if isinstance(teacher, StoredLabels) else batches.batch(step, generator)
        x, rows = batches.pictures(batch), sent(batch.rows, device)  # (B, 3, S, S), (B,)
        if hard_from <= step < hard_until:
            batch = replace(batch, logits=None)
        elif judge:
            batch = replace(batch, logits=ask(judge, x))  # t (B, C), of the mixed picture
        elif own is not None:
            batch = replace(batch, logits=mixed_logits(own[rows], batch.draws, size_px, protocol.temperature))
        with mixed_precision(device, strides=model.has_strides):
            answer = network(x)  # s (B, C)
        if batch.logits is None:
            return hard_label_loss(answer.float(), y[rows], w[rows], batch.draws, size_px, protocol.label_smoothing)
        mixed = batch.draws.mix(w[rows], size_px)  # a·w_i + (1 − a)·w_p: our choice, no source weighs mixed pictures
        return soft_label_loss(answer.float(), sent(batch.logits, device), mixed, protocol.temperature)

    if protocol.batch_norm_momentum is not None:
        set_batch_norm_momentum(model, protocol.batch_norm_momentum)
    optimizer = optimizer_of(model, protocol)
    schedule = by_epoch(optimizer, protocol.schedule, protocol.num_epochs, batches.per_epoch)
    return fit_classifier(model, loss, protocol.num_epochs * batches.per_epoch, optimizer, schedule, seed, checkpoint)


def label_epoch(
    teacher: Classifier, batches: DistilledBatches, epoch: int, top_k: int | None = None
) -> dict[str, NDArray[Any]]:
    """The teacher's labels for an epoch of the training on these batches, packed by pack_epoch."""
    generator, found = torch.Generator(), []
    for step in range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch):
        batch = batches.batch(step, seeded(generator, batches.seed, step))
        found.append(replace(batch, logits=ask(teacher, batches.pictures(batch))))
    return pack_epoch(found, top_k=top_k, temperature=batches.protocol.temperature)


@torch.inference_mode()
def ask(teacher: Classifier, batch: torch.Tensor) -> torch.Tensor:
    """The teacher's logits (B, C) float32 for pictures (B, 3, S, S)."""
    with mixed_precision(batch.device, strides=teacher.has_strides):
        return teacher(batch).float()


def set_batch_norm_momentum(model: Classifier, momentum: float) -> None:
    """running ← (1 − momentum) · running + momentum · batch, in every batch norm."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.momentum = momentum


def optimizer_of(model: Classifier, protocol: Protocol) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only (SRe2L), or SGD with weight decay on all (IDC), as published."""
    if protocol.optimizer == "sgd":
        rate, decay = protocol.learning_rate, protocol.weight_decay
        return torch.optim.SGD(model.parameters(), rate, momentum=protocol.momentum, weight_decay=decay)
    return torch.optim.AdamW(weight_decay_groups(model, protocol.weight_decay), protocol.learning_rate)
