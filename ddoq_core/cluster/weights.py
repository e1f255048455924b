"""Training weights of the distilled points of one class, from the masses of their cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq_core.errors import InvalidInput

ALPHAS = {"uniform": 0.0, "sqrt": 0.5, "mass": 1.0}


def class_weights(counts: ArrayLike, rule: str | float) -> NDArray[np.float64]:
    """Weights w (K,) float64, w_k ∝ p_k^α with mean 1, where p = counts / Σ counts.

    rule  "uniform" (α = 0: D4M), "sqrt" (α = 1/2: the variance reduction of arXiv 2501.07681, Eq. 34, up to
          its constant), "mass" (α = 1: the best weights in W2, Proposition 1), any α ≥ 0 as a number, or
          "sqrt-paper": sqrt(K·p_k), the other reading of Eq. 34, whose mean is at most 1.
    Raises ValueError for an unknown rule, a negative α, or counts that are not all positive.
    """
    v = np.asarray(counts, dtype=np.float64)
    if v.ndim != 1 or v.size == 0 or not (np.isfinite(v).all() and (v > 0).all()):
        raise InvalidInput(f"counts must be a non-empty list of positive numbers, got {counts!r}")
    p = v / v.sum()  # (K,)
    if rule == "sqrt-paper":
        return np.asarray(np.sqrt(len(p) * p))  # mean square 1
    w = p ** _alpha(rule)  # p_k^α (K,)
    return np.asarray(w / w.mean())


def effective_sample_size(w: ArrayLike) -> float:
    """(Σw)² / Σw²: how many equally weighted points have the variance of points weighted by w (K,)."""
    w = np.asarray(w, dtype=np.float64)
    return float(w.sum() ** 2 / np.square(w).sum())


def _alpha(rule: str | float) -> float:
    if isinstance(rule, str):
        if rule not in ALPHAS:
            raise InvalidInput(f"weights {rule!r} is not one of {', '.join(ALPHAS)}, sqrt-paper or a number")
        return ALPHAS[rule]
    if not (np.isfinite(rule) and rule >= 0):
        raise InvalidInput(f"the exponent of the weights must be a finite number ≥ 0, got {rule}")
    return float(rule)
