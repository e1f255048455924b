"""How far a weighted distilled set is from the data in what training sees of it (arXiv 2501.07681, Theorem 1).

The theorem bounds |E f(real) − E f(distilled)| by a constant times W2, for Lipschitz f. With f = ∇ℓ at a fixed network
that is the error of the full gradient.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import nn

from ddoq_core.devices import best_device


def expectation_gap(real: ArrayLike, distilled: ArrayLike, weights: ArrayLike) -> float:
    """‖mean f(real) − Σ w f(distilled) / Σ w‖ of values f (n, p) and (m, p), weights (m,)."""
    w = np.asarray(weights, dtype=np.float64)
    mean = np.asarray(real, dtype=np.float64).mean(0)
    return float(np.linalg.norm(mean - (w / w.sum()) @ np.asarray(distilled, dtype=np.float64)))


def gradient_gap(
    model: nn.Module,
    real: tuple[torch.Tensor, torch.Tensor],
    distilled: tuple[torch.Tensor, torch.Tensor],
    weights: torch.Tensor,
) -> tuple[float, float]:
    """‖∇L(real) − ∇L_w(distilled)‖ at the model as it is, and as a share of ‖∇L(real)‖.

    real, distilled  pictures (n, 3, S, S) in [0, 1] and classes (n,); L is the mean cross entropy
    weights          (m,): the counts of the prototypes' cells, for which the theorem holds, or another rule's
    """
    g = mean_gradient(model, *real, torch.ones(len(real[0])))
    gap = float((g - mean_gradient(model, *distilled, weights)).norm())
    return gap, gap / max(float(g.norm()), 1e-12)


def mean_gradient(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, batch_size: int = 256
) -> torch.Tensor:
    """Σ w_i ∇ℓ_i / Σ w_i over all parameters, flat (p,) float64, in eval mode: batch norm as it was trained."""
    device, was_training = best_device(), model.training
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    model.to(device).eval()
    for k in range(0, len(x), batch_size):
        part = slice(k, k + batch_size)
        loss = F.cross_entropy(model(x[part].to(device)), y[part].to(device), reduction="none")
        loss = weights[part].float().to(device) @ loss
        gradients = torch.autograd.grad(loss, parameters)
        total += torch.cat([g.flatten() for g in gradients]).double().cpu()
    model.train(was_training)
    return total / float(weights.sum())
