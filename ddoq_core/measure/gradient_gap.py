"""How far a weighted distilled set is from the data in what training sees of it (arXiv 2501.07681, Theorem 1).

The theorem bounds |E f(real) − E f(distilled)| by a constant times W2, for Lipschitz f. With f = ∇ℓ at a fixed network
that is the error of the full gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from ddoq_core.devices import best_device

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # pictures (B, 3, S, S), classes (B,), weights (B,)
BATCH_IMAGES = 256


def gradient_gap(
    model: nn.Module, real: torch.Tensor, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor
) -> float:
    """‖g − g_w‖ / ‖g‖ at the model as it is, L the mean cross entropy.

    real     g = ∇L on the data, by mean_gradient (p,)
    x, y     distilled pictures (m, 3, S, S), as mean_gradient takes them, and their classes (m,), whose gradient g_w is
    weights  (m,): the counts of the prototypes' cells, for which the theorem holds, or another rule's
    """
    return float((real - mean_gradient(model, in_batches(x, y, weights))).norm() / real.norm())


def mean_gradient(model: nn.Module, batches: Iterable[Batch]) -> torch.Tensor:
    """Σ w_i ∇ℓ_i / Σ w_i over all parameters, flat (p,) float64, in eval mode: batch norm by its running statistics.

    batches  of pictures in [0, 1] or uint8, with classes and weights; one at a time is in memory
    """
    device, was_training = best_device(), model.training
    parameters = [p for p in model.parameters() if p.requires_grad]
    total, mass = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64), 0.0
    model.to(device).eval()
    for x, y, weights in batches:
        x = x.to(device)
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        losses = F.cross_entropy(model(x), y.to(device), reduction="none")
        gradients = torch.autograd.grad(weights.float().to(device) @ losses, parameters)  # of Σ w_i ℓ_i: batches add up
        total += torch.cat([g.flatten() for g in gradients]).double().cpu()  # (p,), summed in float64 on the CPU
        mass += float(weights.double().sum())
    model.train(was_training)
    return total / mass


def in_batches(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, size: int = BATCH_IMAGES) -> Iterator[Batch]:
    """Batches of pictures (m, 3, S, S) with their classes (m,) and weights (m,)."""
    for k in range(0, len(x), size):
        yield x[k : k + size], y[k : k + size], weights[k : k + size]
