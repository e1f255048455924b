"""What a student is shown in a step, and what its answer costs: batches, losses, and labels that are kept for later.

Stored labels are those of FKD (arXiv 2112.01528, as in SRe2L, arXiv 2306.13092): per epoch the order of the pictures,
what chance decided in their augmentation, and the teacher's logits in half precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ddoq_core.seeds import derive_seed
from ddoq_core.train.augment import Draws

DRAWN = ("shift", "crop", "flip", "partner")  # per picture; the box is per batch
SMALL = {"rows": np.int32, "shift": np.int16, "box": np.int16, "partner": np.int32, "classes": np.int16}


@dataclass(frozen=True)
class Batch:
    """A step's pictures as rows (B,) of the distilled set, their augmentation, and the teacher's logits (B, C)."""

    rows: torch.Tensor
    draws: Draws
    logits: torch.Tensor | None = None


def soft_label_loss(student: torch.Tensor, teacher: torch.Tensor, w: torch.Tensor, temperature: float) -> torch.Tensor:
    """(1/B) Σ w_i KL(softmax(t_i/T) ‖ softmax(s_i/T)), no T² factor (FKD as in arXiv 2306.13092). Logits (B, C)."""
    target = F.log_softmax(teacher.clone() / temperature, dim=1)
    kl = F.kl_div(F.log_softmax(student / temperature, dim=1), target, reduction="none", log_target=True).sum(1)
    return (w * kl).mean()


def hard_label_loss(
    student: torch.Tensor, y: torch.Tensor, w: torch.Tensor, draws: Draws, size_px: int
) -> torch.Tensor:
    """(1/B) Σ a·w_i·CE(s_i, y_i) + (1 − a)·w_p·CE(s_i, y_p), p the partner of CutMix and a the share that is kept.

    Logits (B, C), classes y (B,), weights w (B,). With equal weights this is CutMix's loss (arXiv 1905.04899).
    """
    a = draws.kept(size_px)
    own = w * F.cross_entropy(student, y, reduction="none")
    if draws.partner is None:
        return own.mean()
    other = draws.other(w) * F.cross_entropy(student, draws.other(y), reduction="none")
    return (a * own + (1 - a) * other).mean()


def num_batches(num_images: int, batch_size: int) -> int:
    """Batches of an epoch. A last picture that would be alone joins the batch before: batch norm needs two."""
    return max(1, math.ceil((num_images - 1) / batch_size))


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


def pack_epoch(batches: list[Batch], *, top_k: int | None, temperature: float) -> dict[str, NDArray[Any]]:
    """An epoch of n pictures in B batches as arrays: rows (n,), box (B, 4), shift, crop, flip and partner as drawn
    (n, ...), logits (n, C) float16, or where only the largest k are kept values (n, k), classes (n, k) and rest (n,).

    `rest` is the one logit for all other classes that leaves them their mass at this temperature, as the marginal
    smoothing of FKD does (arXiv 2112.01528).
    """
    found = {"rows": torch.cat([batch.rows for batch in batches])}
    for name in DRAWN:
        parts = [part for batch in batches if (part := getattr(batch.draws, name)) is not None]
        found |= {name: torch.cat(parts)} if parts else {}
    boxes = [batch.draws.box for batch in batches if batch.draws.box is not None]
    found |= {"box": torch.stack(boxes)} if boxes else {}
    logits = torch.cat([batch.logits for batch in batches if batch.logits is not None]).cpu()
    found |= {"logits": logits.half()} if top_k is None else _prune(logits, top_k, temperature)
    return {
        name: np.asarray(value.numpy().astype(SMALL.get(name, value.numpy().dtype))) for name, value in found.items()
    }


def _prune(logits: torch.Tensor, k: int, temperature: float) -> dict[str, torch.Tensor]:
    ranked = logits.sort(dim=1, descending=True)
    others = ranked.values[:, k:] / temperature
    rest = temperature * (others.logsumexp(1) - math.log(max(others.shape[1], 1)))
    return {"values": ranked.values[:, :k].half(), "classes": ranked.indices[:, :k], "rest": rest.half()}


def _unprune(packed: Mapping[str, torch.Tensor], num_classes: int) -> torch.Tensor:
    rest = packed["rest"].float()[:, None].expand(-1, num_classes)
    return rest.scatter(1, packed["classes"].long(), packed["values"].float())


class StoredLabels:
    """Replays packed epochs: the same pictures, augmented alike, with the teacher's logits up to half precision.

    read_epoch  the arrays of an epoch, as pack_epoch made them
    """

    def __init__(
        self,
        read_epoch: Callable[[int], Mapping[str, NDArray[Any]]],
        num_images: int,
        batch_size: int,
        num_classes: int,
    ) -> None:
        self.read_epoch, self.num_images, self.batch_size = read_epoch, num_images, batch_size
        self.num_classes = num_classes
        self._epoch: int | None = None
        self._packed: dict[str, torch.Tensor] = {}

    def batch(self, step: int) -> Batch:
        """What a step sees."""
        epoch, k = divmod(step, num_batches(self.num_images, self.batch_size))
        if epoch != self._epoch:
            self._packed = {name: torch.from_numpy(value) for name, value in self.read_epoch(epoch).items()}
            self._epoch = epoch
        part = batch_slice(k, self.num_images, self.batch_size)
        packed = {name: value[k] if name == "box" else value[part] for name, value in self._packed.items()}
        drawn = {name: packed[name] for name in (*DRAWN, "box") if name in packed}
        draws = Draws(**{n: v if n in ("crop", "flip") else v.long() for n, v in drawn.items()})
        logits = packed["logits"].float() if "logits" in packed else _unprune(packed, self.num_classes)
        return Batch(packed["rows"].long(), draws, logits)
