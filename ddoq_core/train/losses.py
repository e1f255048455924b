"""What a student's answer costs, against the teacher's logits or the classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ddoq_core.train.augment import Draws


def soft_label_loss(student: torch.Tensor, teacher: torch.Tensor, w: torch.Tensor, temperature: float) -> torch.Tensor:
    """(1/B) Σ w_i KL(softmax(t_i/T) ‖ softmax(s_i/T)), no T² factor (FKD as in arXiv 2306.13092). Logits (B, C)."""
    log_p = F.log_softmax(teacher.clone() / temperature, dim=1)  # (B, C), a clone: autograd takes no inference tensor
    log_q = F.log_softmax(student / temperature, dim=1)  # (B, C)
    kl = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)  # (B,), Σ_c p (log p − log q)
    return (w * kl).mean()  # over B (batchmean), not over Σ w


def mixed_logits(logits: torch.Tensor, draws: Draws, size_px: int, temperature: float) -> torch.Tensor:
    """T·log(a·softmax(t_i/T) + (1 − a)·softmax(t_p/T)), (B, C): from the logits of pictures those of the pictures that
    CutMix has made of them, mixed as it mixes classes (arXiv 1905.04899)."""
    if draws.partner is None:
        return logits
    a, p = draws.kept(size_px), F.softmax(logits / temperature, dim=1)  # p (B, C)
    return temperature * (a * p + (1 - a) * draws.other(p)).log()


def hard_label_loss(
    student: torch.Tensor, y: torch.Tensor, w: torch.Tensor, draws: Draws, size_px: int, smoothing: float = 0.0
) -> torch.Tensor:
    """(1/B) Σ a·w_i·CE(s_i, y_i) + (1 − a)·w_p·CE(s_i, y_p), p the partner of CutMix and a the share that is kept.

    Logits (B, C), classes y (B,), weights w (B,). With equal weights this is CutMix's loss (arXiv 1905.04899).

    smoothing  ε of label smoothing (arXiv 1512.00567): 1 − ε of the class, and ε evenly over all
    """
    a = draws.kept(size_px)
    own = w * F.cross_entropy(student, y, reduction="none", label_smoothing=smoothing)  # (B,), w_i·CE(s_i, y_i)
    if draws.partner is None:
        return own.mean()
    of_partner = F.cross_entropy(student, draws.other(y), reduction="none", label_smoothing=smoothing)
    other = draws.other(w) * of_partner  # (B,), w_p·CE(s_i, y_p)
    return (a * own + (1 - a) * other).mean()
