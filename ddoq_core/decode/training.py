"""The recipe's own prior: a small class-conditional diffusion transformer trained on the latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DiTTransformer2DModel
from diffusers.training_utils import EMAModel, compute_snr
from numpy.typing import NDArray

from ddoq_core.decode.dit import dit_prior
from ddoq_core.decode.prior import Prior
from ddoq_core.devices import best_device, mixed_precision, sent
from ddoq_core.fitting import Checkpoint, fit, one_cycle
from ddoq_core.loading import load_pretrained_network

Schedule = Literal["scaled_linear", "cosine"]
Prediction = Literal["epsilon", "v_prediction"]


def load_trained_prior(folder: Path) -> Prior:
    """What train_prior made: the folders `transformer` and `scheduler` in diffusers' format.

    Raises ValueError for tensors that do not fit.
    """
    transformer = load_pretrained_network(DiTTransformer2DModel, folder / "transformer")
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    return dit_prior(transformer, scheduler, range(transformer.config.num_embeds_ada_norm))


def train_prior(
    z: NDArray[np.float32],
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    num_layers: int,
    num_heads: int,
    head_dim: int,
    patch_size: int,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    label_dropout: float,
    seed: int,
    checkpoint: Checkpoint,
    schedule: Schedule = "scaled_linear",
    prediction: Prediction = "epsilon",
    min_snr_gamma: float | None = None,
) -> tuple[DiTTransformer2DModel, DDIMScheduler, list[float]]:
    """A small latent DiT on latents z (n, C, H, W) of all classes; the weights returned are their moving average."""
    latents, y = torch.from_numpy(z), torch.from_numpy(labels)  # (n, C, H, W), (n,)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_transformer(z.shape[1], z.shape[2], num_classes, num_layers, num_heads, head_dim, patch_size)
    device, scheduler = best_device(), new_scheduler(schedule, prediction)
    model.to(device)
    diffusion_loss = DiffusionLoss(scheduler, min_snr_gamma)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.0, betas=(0.9, 0.99))
    average = EMAModel(model.parameters(), decay=0.999)  # θ̄ ← 0.999 θ̄ + 0.001 θ, faster at the start

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(latents), (batch_size,), generator=generator)  # (B,)
        t = torch.randint(scheduler.config.num_train_timesteps, (batch_size,), generator=generator)  # (B,)
        noise = torch.randn(latents[chosen].shape, generator=generator)  # ε ~ N(0, I), (B, C, H, W)
        dropped = torch.rand(batch_size, generator=generator) < label_dropout
        condition = torch.where(dropped, num_classes, y[chosen])  # (B,), no class for guidance (arXiv 2207.12598)
        noised = sent(scheduler.add_noise(latents[chosen], noise, t), device)  # √ᾱ_t·z + √(1 − ᾱ_t)·ε
        with mixed_precision(device):
            predicted = model(noised, timestep=sent(t, device), class_labels=sent(condition, device)).sample
        return diffusion_loss(predicted.float(), latents[chosen], noise, t)

    losses = fit(
        loss,
        num_steps,
        model=model,
        optimizer=optimizer,
        schedule=one_cycle(optimizer, learning_rate, num_steps),
        seed=seed,
        checkpoint=checkpoint,
        extra={"average": average},
        after_step=lambda: average.step(model.parameters()),
    )
    average.copy_to(model.parameters())
    return model.requires_grad_(False), scheduler, losses


def _new_transformer(
    channels: int, side: int, num_classes: int, num_layers: int, num_heads: int, head_dim: int, patch_size: int
) -> DiTTransformer2DModel:
    model = DiTTransformer2DModel(
        num_attention_heads=num_heads,
        attention_head_dim=head_dim,
        in_channels=channels,
        out_channels=channels,  # no learned variance
        num_layers=num_layers,
        sample_size=side,
        patch_size=patch_size,
        num_embeds_ada_norm=num_classes,
    )
    return model.eval()  # its own label dropout, drawn for each layer apart, stays off


def new_scheduler(schedule: Schedule, prediction: Prediction) -> DDIMScheduler:
    """Stable Diffusion's noise schedule, or the cosine one (arXiv 2102.09672)."""
    linear = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    betas: dict[str, Any] = linear if schedule == "scaled_linear" else {"beta_schedule": "squaredcos_cap_v2"}
    return DDIMScheduler(**betas, prediction_type=prediction, clip_sample=False)


@dataclass(frozen=True)
class DiffusionLoss:
    """What the network is to predict, and how much each noise level counts."""

    scheduler: DDIMScheduler
    min_snr_gamma: float | None

    def __call__(self, predicted: torch.Tensor, z: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the predicted noise or velocity, weighted by min-SNR-γ (arXiv 2303.09556) if set."""
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        # v = √ᾱ_t·ε − √(1 − ᾱ_t)·z (arXiv 2202.00512)
        target = sent(self.scheduler.get_velocity(z, noise, t) if velocity else noise, predicted.device)
        if self.min_snr_gamma is None:
            return F.mse_loss(predicted, target)
        snr = compute_snr(self.scheduler, t)  # (B,), ᾱ_t/(1 − ᾱ_t)
        # min(SNR, γ)·‖z − ẑ_0‖², which is ‖ε − ε̂‖²/SNR, or ‖v − v̂‖²/(SNR + 1)
        weights = snr.clamp(max=self.min_snr_gamma) / (snr + 1 if velocity else snr)  # (B,)
        return (sent(weights, predicted.device) * (predicted - target).square().mean((1, 2, 3))).mean()
