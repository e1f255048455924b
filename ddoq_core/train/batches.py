"""What a student is shown in a step: which pictures, and in which order over an epoch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from ddoq_core.seeds import derive_seed
from ddoq_core.train.augment import Draws
from ddoq_core.train.protocol import num_batches


@dataclass(frozen=True)
class Batch:
    """A step's pictures as rows (B,) of the distilled set, their augmentation, and the teacher's logits (B, C)."""

    rows: torch.Tensor
    draws: Draws
    logits: torch.Tensor | None = None


def batch_slice(k: int, num_images: int, batch_size: int) -> slice:
    """Where the k-th batch of an epoch lies in the epoch's order; the last may be of another size."""
    last = k == num_batches(num_images, batch_size) - 1
    return slice(k * batch_size, num_images if last else (k + 1) * batch_size)


def batch_of(
    step: int, num_images: int, batch_size: int, seed: int, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Indices of a step's batch: each epoch is a permutation of its own, or with weights (n,) n draws by them."""
    epoch, k = divmod(step, num_batches(num_images, batch_size))
    order = epoch_order(epoch, num_images, seed) if weights is None else epoch_sample(epoch, weights, seed)
    return order[batch_slice(k, num_images, batch_size)]


@lru_cache(maxsize=1)
def epoch_order(epoch: int, num_images: int, seed: int) -> torch.Tensor:
    """A permutation of the pictures."""
    return torch.randperm(num_images, generator=_generator(seed, epoch))


def epoch_sample(epoch: int, weights: torch.Tensor, seed: int) -> torch.Tensor:
    """As many pictures as there are, each drawn with a probability in proportion to its weight."""
    return torch.multinomial(weights, len(weights), replacement=True, generator=_generator(seed, epoch))


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
