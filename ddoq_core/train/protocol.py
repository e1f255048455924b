"""How a classifier is trained, in plain values that settings, digests and trainings share. Loads no torch, no numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Labels = Literal["online", "stored", "hard", "own"]
WeightsIn = Literal["loss", "sampling", "none"]
Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "half-cosine", "steps"]
MOST_SHIFT_PX = 4096


@dataclass(frozen=True)
class Augmentation:
    """What a training picture goes through, the same for every method.

    shift_px      random shift in both directions by at most this, edges repeated
    resized_crop  random crop of a share of the area from (smallest, largest), resized
    flip          mirror half of the pictures
    cutmix        one CutMix box and permutation per batch; for students only
    Raises ValueError for a shift or shares that cannot be.
    """

    shift_px: int = 0
    resized_crop: tuple[float, float] | None = None
    flip: bool = False
    cutmix: bool = False

    def __post_init__(self) -> None:
        if self.shift_px < 0:
            raise ValueError(f"shift_px must be 0 or more, got {self.shift_px}")
        if self.shift_px > MOST_SHIFT_PX:
            raise ValueError(f"shift_px must be at most {MOST_SHIFT_PX}, got {self.shift_px}")
        smallest, largest = self.resized_crop or (1, 1)
        if not 0 < smallest <= largest <= 1:
            raise ValueError(
                "resized_crop must be (smallest, largest) with 0 < smallest <= largest <= 1, e.g. (0.08, 1), "
                f"got ({smallest}, {largest})"
            )


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a classifier is trained, complete. The same for every method that is compared.

    hard_phase   (from, until), shares of the training in which the classes are the labels instead: HALD's soft, hard,
                 soft (arXiv 2512.15647), whose script has (1/6, 5/6)
    label_smoothing  of class labels: 1 − ε of a picture's label, and ε evenly over all
    labels       the teacher's in the training step, the teacher's as stored beforehand, the classes, or a given set's
                 own soft labels
    label_top_k  of stored labels, how many logits are kept per picture; None: all
    weights_in   "loss": multiply a picture's loss; "sampling": draw an epoch's pictures by them; "none"
    schedule     see ddoq_core.fitting.by_epoch
    temperature  T of the soft-label loss
    batch_norm_momentum  how far a step takes batch norm's running statistics to its batch's; None: as the network's own
    center_crop  how students are shown the held-out images, see ddoq_core.images.preprocess; no part of the training
    Of a teacher only the epochs, batch size, rates and augmentation count.
    """

    labels: Labels = "online"
    label_top_k: int | None = None
    hard_phase: tuple[float, float] | None = None
    label_smoothing: float = 0.0
    weights_in: WeightsIn = "loss"
    num_epochs: int
    batch_size: int
    optimizer: Optimizer = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.01
    schedule: Schedule = "cosine"
    temperature: float = 20.0
    batch_norm_momentum: float | None = None
    center_crop: float | None = None
    augmentation: Augmentation


def num_batches(num_images: int, batch_size: int) -> int:
    """Batches of an epoch. A last picture that would be alone joins the batch before: batch norm needs two."""
    return max(1, math.ceil((num_images - 1) / batch_size))
