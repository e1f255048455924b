"""DD-Ranking's scores of a distilled set from accuracies (arXiv 2505.13300). All accuracies are fractions, 0 to 1."""

from __future__ import annotations

import math


def hard_label_recovery(full: float, distilled: float) -> float:
    """HLR: what is lost, with class labels, by training on the distilled set instead of all real images. Less is
    better."""
    return _checked(full) - _checked(distilled)


def improvement_over_random(distilled: float, random: float) -> float:
    """IOR: what is gained over as many real images at random, both under the method's own protocol and labels."""
    return _checked(distilled) - _checked(random)


def label_robust_score(hlr: float, ior: float, weight: float = 0.5) -> float:
    """LRS = (e^α − 1/e) / (e − 1/e) with α = weight·IOR − (1 − weight)·HLR: 0 at α = −1, 1 at α = 1."""
    alpha = weight * ior - (1 - weight) * hlr
    return (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))


def _checked(accuracy: float) -> float:
    if not 0 <= accuracy <= 1:
        raise ValueError(f"an accuracy is a fraction from 0 to 1, got {accuracy}: per cent must be divided by 100")
    return accuracy
