"""Diffusion priors: what turns a centroid into a latent of its class.

A prior noises a centroid to `strength` of the schedule and denoises it, conditioned on the class
(arXiv 2501.07681: x = D ∘ U_t(z, class)). Knows a denoiser and a schedule, not where they come from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler, SchedulerMixin

from ddoq_core.decode.noise import matched_timestep
from ddoq_core.seeds import derive_seed

Denoise = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Sampler = Literal["given", "ddim", "ddpm"]
MGD3_STEPS = (0.0, 0.5)
SAMPLERS = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler}


@dataclass(frozen=True)
class Prior:
    """A conditional denoiser and its schedule.

    denoise(z (B, C, H, W), t (B,), condition (B, …)) is the predicted noise (or what the schedule expects), float32
    in and out; conditions[c] and `unconditional` are the conditions of class c and of no class.
    """

    denoise: Denoise
    scheduler: SchedulerMixin
    conditions: torch.Tensor
    unconditional: torch.Tensor

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
        seeds: Sequence[int] | None = None,
        inversion: bool = False,
        centroid_guidance: float = 0.0,
        centroid_guidance_steps: tuple[float, float] = MGD3_STEPS,
        masses: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Latents (B, C, H, W) float32 from centroids z noised to `strength`, denoised in strength · num_steps steps.

        strength           share of the schedule; None: where its signal-to-noise ratio is that at which D4M starts
        guided_channels    guide the first of the C channels alone; DiT's own script has 3 of 4, and so has Minimax
        seeds              B seeds of the noise that a stochastic scheduler adds at its steps
        inversion          the centroid's own noise, by DDIM inversion, takes the place of `noise`
        centroid_guidance  λ of the pull towards the centroid (MGD3, arXiv 2505.18963), in these shares of the steps,
                           (from, until): MGD3's scripts stop it after 25 of 50, DMGD has it in 30 to 45
        masses             (B,) of the centroids: the pull is to where optimal transport sends a latent, see `targets`
        """
        device = self.conditions.device
        centroids, labels, noise = z.to(device), labels.to(device), noise.to(device)
        timesteps = self._timesteps(strength, num_steps)  # t_1 ≥ t_2 ≥ …, of which there are none for a tiny strength
        if len(timesteps) == 0:
            return centroids
        if inversion:
            z = self._inverted(centroids, labels, num_steps, len(timesteps))
        else:
            t = timesteps[:1].expand(len(centroids))  # (B,)
            z = self.scheduler.add_noise(centroids, noise, t)  # z_t = √ᾱ_t·z + √(1 − ᾱ_t)·ε
        draws = self._draws(seeds)
        for k, t in enumerate(timesteps):
            found = self.scheduler.step(self._guided(z, t, labels, guidance_scale, guided_channels), t, z, **draws)
            z = found.prev_sample  # (B, C, H, W), from t to the step after it
            if centroid_guidance and k in guided_steps(len(timesteps), centroid_guidance_steps):
                clean, sigma = found.pred_original_sample, self._step_deviation(t, timesteps[k + 1])
                target = targets(clean, centroids, labels, masses)
                z = z + centroid_guidance * sigma * (target - clean)  # λ·σ_t·(m − ẑ_0)
        return z

    def with_sampler(self, sampler: Sampler) -> Prior:
        """The same prior under another scheduler; "given" is its own."""
        if sampler == "given":
            return self
        return replace(self, scheduler=SAMPLERS[sampler].from_config(self.scheduler.config, clip_sample=False))

    def _timesteps(self, strength: float | None, num_steps: int) -> torch.Tensor:
        """The schedule's steps from `strength` on, counted as diffusers' image-to-image pipelines do."""
        self.scheduler.set_timesteps(num_steps, device=self.conditions.device)
        timesteps = self.scheduler.timesteps
        if strength is None:
            return timesteps[(timesteps - matched_timestep(self.scheduler)).abs().argmin() :]
        first = num_steps - min(int(num_steps * strength), num_steps)
        return timesteps[first * self.scheduler.order :]

    def _guided(
        self, z: torch.Tensor, t: torch.Tensor, labels: torch.Tensor, scale: float, channels: int | None = None
    ) -> torch.Tensor:
        z_in = self.scheduler.scale_model_input(z, t)
        condition = self.conditions[labels]  # (B, …)
        return guided(self.denoise, z_in, t.expand(len(z)), condition, self.unconditional, scale, channels)

    def _inverted(self, z: torch.Tensor, labels: torch.Tensor, num_steps: int, num_inverted: int) -> torch.Tensor:
        """DDIM run backwards (arXiv 2010.02502), from the centroid to its noise, unguided. D3HR (arXiv 2505.18358)
        inverts every real latent instead, and draws from a Gaussian of theirs."""
        inverse = DDIMInverseScheduler.from_config(self.scheduler.config, clip_sample=False)
        inverse.set_timesteps(num_steps, device=z.device)
        for t in inverse.timesteps[:num_inverted]:
            z = inverse.step(self._guided(z, t, labels, 1.0), t, z).prev_sample  # towards noise, t rising
        return z

    def _step_deviation(self, t: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        """σ_t, the standard deviation of DDPM's step (arXiv 2006.11239), by which MGD3 scales λ·σ_t·(m − ẑ_0)."""
        now, then = self.scheduler.alphas_cumprod[torch.stack([t, following]).cpu()].to(t.device)  # ᾱ_t, ᾱ_s, s < t
        return ((1 - then) / (1 - now) * (1 - now / then)).sqrt()  # σ_t² = (1 − ᾱ_s)/(1 − ᾱ_t)·β_t, β_t = 1 − ᾱ_t/ᾱ_s

    def _draws(self, seeds: Sequence[int] | None) -> dict[str, Any]:
        if seeds is None or "generator" not in inspect.signature(self.scheduler.step).parameters:
            return {}
        return {"generator": [torch.Generator().manual_seed(derive_seed(seed, "steps")) for seed in seeds]}


def guided_steps(num_steps: int, shares: tuple[float, float]) -> range:
    """The steps, of 0 to num_steps − 1, that lie in (from, until) of all; the last one is pulled nowhere."""
    first, until = shares
    return range(int(first * num_steps), min(int(until * num_steps), num_steps - 1))


def targets(
    clean: torch.Tensor, centroids: torch.Tensor, labels: torch.Tensor, masses: torch.Tensor | None
) -> torch.Tensor:
    """Where clean latents ẑ_0 (B, C, H, W) are pulled: each to its own centroid, or with masses (B,) of these to
    Σ_k π_ik·m_k / a_i, by the optimal plan π for |ẑ_i − m_k|² between the latents of a class, which weigh alike, and
    its centroids with their masses.

    Half the gradient of W2² in ẑ_i, over a_i, is ẑ_i less that. Source: DMGD (arXiv 2605.03877), whose target is
    k-means with masses too; its code is not published: plan, scale and metric are ours. The plan is the batch's.
    """
    if masses is None:
        return centroids
    import ot

    found = torch.empty_like(clean)
    for label in set(labels.tolist()):
        rows = (labels == label).nonzero()[:, 0]
        z, m = clean[rows].flatten(1).double(), centroids[rows].flatten(1).double()  # (n, d) each
        a, b = np.full(len(rows), 1 / len(rows)), masses[rows.cpu()].double().numpy()  # marginals
        plan = ot.emd(a, b / b.sum(), torch.cdist(z, m).square().cpu().numpy())  # π (n, n)
        sent = torch.from_numpy(plan / a[:, None]).to(m) @ m
        found[rows] = sent.view(len(rows), *clean.shape[1:]).to(found)
    return found


def guided(
    denoise: Denoise,
    z: torch.Tensor,
    t: torch.Tensor,
    condition: torch.Tensor,
    unconditional: torch.Tensor,
    scale: float,
    channels: int | None = None,
) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598) of z (B, C, H, W) at t (B,) in one batch; at scale 1 the class alone
    counts. Of some channels alone, the others follow the class."""
    if scale == 1:
        return denoise(z, t, condition)
    both = torch.cat([condition, unconditional.expand(len(z), *unconditional.shape)])
    with_class, without = denoise(torch.cat([z, z]), torch.cat([t, t]), both).chunk(2)  # ε(z_t, c), ε(z_t, ∅)
    found = without + scale * (with_class - without)  # s = 1 is the class alone; the paper's w is s − 1
    return found if channels is None else torch.cat([found[:, :channels], with_class[:, channels:]], dim=1)
