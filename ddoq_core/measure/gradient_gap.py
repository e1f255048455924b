"""How far a weighted distilled set is from the data in what training sees of it (arXiv 2501.07681, Theorem 1).

The theorem bounds |E f(real) − E f(distilled)| by a constant times W2, for Lipschitz f. With f = ∇ℓ at a fixed network
that is the error of the full gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ddoq_core.devices import best_device


def gradient_gap(
    model: nn.Module, real: torch.Tensor, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor
) -> float:
    """‖g − g_w‖ / ‖g‖ at the model as it is, L the mean cross entropy.

    real     g = ∇L on the data, by mean_gradient (p,)
    x, y     distilled pictures (m, 3, S, S), as mean_gradient takes them, and their classes (m,), whose gradient g_w is
    weights  (m,): the counts of the prototypes' cells, for which the theorem holds, or another rule's
    """
    return float((real - mean_gradient(model, x, y, weights)).norm() / real.norm())


def mean_gradient(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor | None = None, batch_size: int = 256
) -> torch.Tensor:
    """Σ w_i ∇ℓ_i / Σ w_i over all parameters, flat (p,) float64, in eval mode: batch norm by its running statistics.

    x        (n, 3, S, S) in [0, 1], or uint8
    weights  (n,), all 1 if None
    """
    weights = torch.ones(len(x)) if weights is None else weights
    device, was_training = best_device(), model.training
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    model.to(device).eval()
    for k in range(0, len(x), batch_size):
        part = slice(k, k + batch_size)
        batch = x[part].to(device)
        batch = batch.float() / 255 if batch.dtype == torch.uint8 else batch
        loss = F.cross_entropy(model(batch), y[part].to(device), reduction="none")
        loss = weights[part].float().to(device) @ loss  # Σ w_i ℓ_i, so that batches add up
        gradients = torch.autograd.grad(loss, parameters)
        total += torch.cat([g.flatten() for g in gradients]).double().cpu()  # (p,), summed in float64 on the CPU
    model.train(was_training)
    return total / float(weights.sum())
