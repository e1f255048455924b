"""Labels that are kept for later: those of FKD (arXiv 2112.01528, as in SRe2L, arXiv 2306.13092).

Per epoch: the order of the pictures, what chance decided in their augmentation, and the teacher's logits in half
precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddoq_core.train.augment import Draws
from ddoq_core.train.batches import Batch
from ddoq_core.train.protocol import num_batches

DRAWN = ("shift", "crop", "flip", "partner")  # per picture; the box is per batch
SMALL = {"rows": np.int32, "shift": np.int16, "box": np.int16, "partner": np.int32, "classes": np.int16}


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
    ranked = logits.sort(dim=1, descending=True)  # (n, C)
    others = ranked.values[:, k:] / temperature  # (n, C − k)
    rest = temperature * (others.logsumexp(1) - math.log(max(others.shape[1], 1)))  # (n,), T·log mean exp(t/T)
    return {"values": ranked.values[:, :k].half(), "classes": ranked.indices[:, :k], "rest": rest.half()}


def _unprune(packed: Mapping[str, torch.Tensor], num_classes: int) -> torch.Tensor:
    rest = packed["rest"].float()[:, None].expand(-1, num_classes)  # (B, C)
    return rest.scatter(1, packed["classes"].long(), packed["values"].float())


class StoredLabels:
    """Replays packed epochs: the same pictures, augmented alike, with the teacher's logits up to half precision.

    read_step  the arrays (B, ...) of the k-th step of an epoch, and its box (4,), cut out of what pack_epoch made
    """

    def __init__(
        self,
        read_step: Callable[[int, int], Mapping[str, NDArray[Any]]],
        num_images: int,
        batch_size: int,
        num_classes: int,
    ) -> None:
        self.read_step, self.num_classes = read_step, num_classes
        self.per_epoch = num_batches(num_images, batch_size)

    def batch(self, step: int) -> Batch:
        """What a step sees."""
        packed = {
            name: torch.from_numpy(value) for name, value in self.read_step(*divmod(step, self.per_epoch)).items()
        }
        drawn = {name: packed[name] for name in (*DRAWN, "box") if name in packed}
        draws = Draws(**{n: v if n in ("crop", "flip") else v.long() for n, v in drawn.items()})
        logits = packed["logits"].float() if "logits" in packed else _unprune(packed, self.num_classes)
        return Batch(packed["rows"].long(), draws, logits)
