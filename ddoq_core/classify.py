"""Training of teachers on real images and of students on distilled ones, and their accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ddoq_core.augment import augment, cutmix
from ddoq_core.fitting import Keeper, Loss, cosine_by_epoch, fit, one_cycle, weight_decay_groups
from ddoq_core.images import to_unit
from ddoq_core.networks import Classifier
from ddoq_core.seeds import derive_seed


@dataclass(frozen=True)
class Protocol:
    """How a classifier is trained. The same for every method that is compared."""

    num_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    temperature: float = 1.0
    shift_px: int = 0
    resized_crop: tuple[float, float] | None = None
    flip: bool = False
    cutmix: bool = False

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Crop, shift and flip as the protocol says; CutMix is for students only."""
        return augment(x, generator, shift_px=self.shift_px, resized_crop=self.resized_crop, flip=self.flip)


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
    keeper: Keeper,
) -> list[float]:
    """Fit a classifier to real images (n, S, S, 3) by cross entropy, ending in eval mode. Returns losses."""
    device = model.mean.device
    x, y = to_unit(images).to(device), torch.from_numpy(labels).to(device)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = batch_of(step, len(x), protocol.batch_size, seed)
        return F.cross_entropy(model(protocol.augment(x[chosen], generator)), y[chosen])

    per_epoch = num_batches(len(x), protocol.batch_size)
    optimizer = torch.optim.AdamW(weight_decay_groups(model, protocol.weight_decay), protocol.learning_rate)
    schedule = one_cycle(optimizer, protocol.learning_rate, protocol.num_epochs * per_epoch)
    return _fit_classifier(model, loss, protocol.num_epochs * per_epoch, optimizer, schedule, seed, keeper)


def train_student(
    model: Classifier,
    teacher: Classifier,
    images: NDArray[np.uint8],
    weights: NDArray[np.float64],
    protocol: Protocol,
    seed: int,
    keeper: Keeper,
) -> list[float]:
    """Fit a student to the teacher's soft labels on weighted distilled images (n, S, S, 3), weights (n,).

    The teacher labels every augmented batch as it is drawn. L = (1/B) Σ w_i KL_i at temperature T (paper, step 5).
    """
    device = model.mean.device
    x, w = to_unit(images).to(device), torch.from_numpy(weights).float().to(device)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = batch_of(step, len(x), protocol.batch_size, seed)
        batch, weight = protocol.augment(x[chosen], generator), w[chosen]
        if protocol.cutmix:
            batch, weight = cutmix(batch, weight, generator)
        with torch.inference_mode():
            soft = teacher(batch)
        return soft_label_loss(model(batch), soft, weight, protocol.temperature)

    per_epoch = num_batches(len(x), protocol.batch_size)
    optimizer = torch.optim.AdamW(weight_decay_groups(model, protocol.weight_decay), protocol.learning_rate)
    schedule = cosine_by_epoch(optimizer, protocol.num_epochs, per_epoch)
    return _fit_classifier(model, loss, protocol.num_epochs * per_epoch, optimizer, schedule, seed, keeper)


def _fit_classifier(
    model: Classifier,
    loss: Loss,
    num_steps: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    seed: int,
    keeper: Keeper,
) -> list[float]:
    model.train()
    losses = fit(loss, num_steps, model=model, optimizer=optimizer, schedule=schedule, seed=seed, keeper=keeper)
    model.eval()
    return losses


def soft_label_loss(student: torch.Tensor, teacher: torch.Tensor, w: torch.Tensor, temperature: float) -> torch.Tensor:
    """(1/B) Σ w_i KL(softmax(t_i/T) ‖ softmax(s_i/T)), no T² factor (FKD as in arXiv 2306.13092). Logits (B, C)."""
    target = F.log_softmax(teacher.clone() / temperature, dim=1)
    kl = F.kl_div(F.log_softmax(student / temperature, dim=1), target, reduction="none", log_target=True).sum(1)
    return (w * kl).mean()


def num_batches(num_images: int, batch_size: int) -> int:
    """Batches of an epoch. A last picture that would be alone joins the batch before: batch norm needs two."""
    return max(1, math.ceil((num_images - 1) / batch_size))


def batch_of(step: int, num_images: int, batch_size: int, seed: int) -> torch.Tensor:
    """Indices of a step's batch: each epoch is a permutation of its own; its last batch may be of another size."""
    per_epoch = num_batches(num_images, batch_size)
    epoch, k = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
    end = num_images if k == per_epoch - 1 else (k + 1) * batch_size
    return torch.randperm(num_images, generator=generator)[k * batch_size : end]


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
