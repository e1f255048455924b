"""The noise that a centroid is given: how much, what it lacks, and drawn from which seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin
from numpy.typing import NDArray

from ddoq_core.seeds import derive_seed

D4M_FIRST_STEP = 701  # of Stable Diffusion's 1000, at strength 0.7 and 50 steps (arXiv 2407.15138)


def d4m_signal_to_noise() -> float:
    """ᾱ/(1 − ᾱ) of Stable Diffusion's schedule where D4M starts, at ᾱ = 0.082."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2  # β_t of Stable Diffusion, linear in √β
    alpha_bar = (1 - betas).cumprod(0)[D4M_FIRST_STEP]  # ᾱ_t = Π (1 − β_s)
    return float(alpha_bar / (1 - alpha_bar))


def matched_timestep(scheduler: SchedulerMixin) -> int:
    """The timestep whose signal-to-noise ratio is the one at which D4M starts; 495 for a DiT."""
    log_snr = torch.logit(scheduler.alphas_cumprod)  # log ᾱ_t/(1 − ᾱ_t), of each of this schedule's t
    return int((log_snr - math.log(d4m_signal_to_noise())).abs().argmin())


def unit_seeds(num: int, seed: int, *unit: Any) -> list[int]:
    """Seeds of a unit's pictures; the k-th depends on (seed, unit, k) alone."""
    return [derive_seed(seed, "noise", *unit, k) for k in range(num)]


def noise_of(seeds: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal noise (B, *shape), each row drawn from its own seed."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def residuals_of(seeds: Sequence[int], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal noise (B, *shape) that takes the place of what a centroid lacks, each row from its own seed."""
    return noise_of([derive_seed(seed, "residual") for seed in seeds], shape).numpy()


def residual_variance(
    blocks: Iterable[NDArray[Any]], centroids: NDArray[Any], assignment: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """What quantisation left out, per cell and channel: the mean (K, C) of (z − c)² over a cell's latents z and their
    positions; latents (n, C, H, W) come in blocks (b, C, H, W), of which assignment (n,) says the cells.

    A centroid with normal noise of this variance has the energy of a latent of its cell, and so it has after any
    step of noising: √ᾱ·(c + σ·ε') + √(1 − ᾱ)·ε is √ᾱ·c + √(1 − ᾱ + ᾱ·σ²)·ε.
    """
    total = np.zeros(centroids.shape[:2])  # (K, C)
    start = 0
    for block in blocks:
        cells = assignment[start : start + len(block)]
        squares = np.square(block.astype(np.float32) - centroids[cells]).mean((2, 3))  # (b, C)
        np.add.at(total, cells, squares)
        start += len(block)
    counts = np.bincount(assignment, minlength=len(centroids))
    return (total / np.maximum(counts, 1)[:, None]).astype(np.float32)
