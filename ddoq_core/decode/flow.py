"""Rectified flows as priors: what train_prior makes, sampled along straight paths z_t = (1 − t)·z + t·ε.

By Euler's steps, which are DDIM's on such paths, or the ancestral ones of DDPM. Priors under diffusers' schedules are
in ddoq_core.decode.prior; both are sampled alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from ddoq_core.decode.noise import d4m_signal_to_noise
from ddoq_core.decode.prior import MGD3_STEPS, Denoise, Sampler, guided, guided_steps, targets
from ddoq_core.decode.transformer import FlowTransformer
from ddoq_core.devices import multiplies_faster_in_bfloat16, placed
from ddoq_core.loading import load_pretrained_network
from ddoq_core.seeds import derive_seed


def load_trained_prior(folder: Path) -> FlowPrior:
    """What train_prior made, saved by save_pretrained. Raises InvalidInput for tensors that do not fit."""
    return flow_prior(load_pretrained_network(FlowTransformer, folder))


def flow_prior(transformer: FlowTransformer) -> FlowPrior:
    """The prior of a trained transformer, which computes in bfloat16 where that is faster, as it was trained."""
    model, config, device = placed(transformer), transformer.config, transformer.device
    fast = multiplies_faster_in_bfloat16(device)

    def denoise(z: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast):
            return model(z.to(transformer.dtype), t, condition).float()

    ids = torch.arange(config.num_classes + 1, device=transformer.device)  # the last one is no class
    mean, std = (torch.tensor(part, device=ids.device) for part in (config.latents_mean, config.latents_std))
    return FlowPrior(denoise, ids[:-1], ids[-1], mean.view(-1, 1, 1), std.view(-1, 1, 1))


@dataclass(frozen=True)
class FlowPrior:
    """A conditional velocity and the scale of its latents.

    denoise(z (B, C, H, W), t (B,), condition (B, …)) is the velocity v = ε − z, float32 in and out; conditions[c] and
    `unconditional` are the conditions of class c and of no class; z = (latent − mean) / std, both (C, 1, 1).
    """

    denoise: Denoise
    conditions: torch.Tensor
    unconditional: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    sampler: Sampler = "given"

    @torch.inference_mode()
    def sample(
        self,
        z: torch.Tensor,
        labels: torch.Tensor,
        noise: torch.Tensor,
        *,
        strength: float | None,
        guidance_scale: float,
        num_steps: int,
        guided_channels: int | None = None,
        seeds: Sequence[int] = (),
        inversion: bool = False,
        centroid_guidance: float = 0.0,
        centroid_guidance_steps: tuple[float, float] = MGD3_STEPS,
        masses: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Latents (B, C, H, W) float32 from centroids z that are noised to t = strength; everything as Prior.sample."""
        times = _times(strength, num_steps)  # t_0 > t_1 > … > 0
        if len(times) == 1:
            return z.to(self.mean.device)
        labels, centroids = labels.to(self.mean.device), (z.to(self.mean.device) - self.mean) / self.std
        generators = [torch.Generator().manual_seed(derive_seed(seed, "steps")) for seed in seeds]
        if inversion:
            z = self._inverted(centroids, labels, times)
        else:
            z = torch.lerp(centroids, noise.to(centroids), times[0])  # z_t = (1 − t)·z + t·ε
        for k, (t, s) in enumerate(pairwise(times)):
            v = self._velocity(z, t, labels, guidance_scale, guided_channels)
            clean, eps = z - t * v, z + (1 - t) * v  # ẑ_0, ε̂
            share = _share_drawn_anew(t, s)
            if self.sampler == "ddpm":
                fresh = torch.stack([torch.randn(z.shape[1:], generator=generator) for generator in generators])
                eps = math.sqrt(1 - share**2) * eps + share * fresh.to(eps)
            z = (1 - s) * clean + s * eps  # at t = s; for the same ẑ_0 and ε̂ that is z + (s − t)·v
            if centroid_guidance and k in guided_steps(len(times) - 1, centroid_guidance_steps):
                target = targets(clean, centroids, labels, masses)
                z = z + centroid_guidance * s * share * (target - clean)  # λ·σ_t·(m − ẑ_0)
        return self.mean + self.std * z

    def with_sampler(self, sampler: Sampler) -> FlowPrior:
        """The same prior with other steps; its own are Euler's, and so are DDIM's."""
        return replace(self, sampler=sampler)

    def _velocity(
        self, z: torch.Tensor, t: float, labels: torch.Tensor, scale: float, channels: int | None = None
    ) -> torch.Tensor:
        times = torch.full((len(z),), t, device=z.device)
        return guided(self.denoise, z, times, self.conditions[labels], self.unconditional, scale, channels)

    def _inverted(self, z: torch.Tensor, labels: torch.Tensor, times: list[float]) -> torch.Tensor:
        """Euler's steps backwards, from the centroid to its noise, unguided (see Prior.sample)."""
        for s, t in pairwise(reversed(times)):
            z = z + (t - s) * self._velocity(z, t, labels, 1.0)
        return z


def _times(strength: float | None, num_steps: int) -> list[float]:
    """t_0 > t_1 > … > 0 in steps of 1/num_steps, from `strength` on as Prior.sample counts them."""
    if strength is None:
        first = round(num_steps / (1 + math.sqrt(d4m_signal_to_noise())))  # SNR_t = ((1 − t)/t)²
    else:
        first = min(int(num_steps * strength), num_steps)
    return [k / num_steps for k in range(first, -1, -1)]


def _share_drawn_anew(t: float, s: float) -> float:
    """σ/s of the deviation σ of DDPM's step from t to s (arXiv 2006.11239): (σ/s)² = 1 − SNR_t/SNR_s."""
    return math.sqrt(1 - ((1 - t) / t * s / (1 - s)) ** 2)
