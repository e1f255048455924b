"""Training of the recipe's own prior: a rectified flow (arXiv 2209.03003) on the latents of all classes."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray
from torch import nn

from ddoq_core.decode.transformer import FlowTransformer
from ddoq_core.devices import best_device, is_compiling, multiplies_faster_in_bfloat16, sent
from ddoq_core.fitting import Checkpoint, fit, one_cycle
from ddoq_core.parallel import mean_loss, single_threads

AVERAGED = 0.05  # share of the steps over which the weights are averaged
MAX_NORM = 1.0  # of the gradient
PART = 32  # latents that a core takes at a time: a tenth slower than all at once, half as many a fifth


def train_prior(
    z: NDArray[np.float16],
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
    num_threads: int = 1,
) -> tuple[FlowTransformer, list[float]]:
    """A small latent transformer on latents z (n, C, S, S) of all classes, and the mean loss of each twentieth of the
    steps; the weights returned are their moving average.

    It computes in bfloat16 where that is faster; weights, optimiser and average are float32. The bits are the same for
    any num_threads.
    """
    latents, y = torch.from_numpy(z), torch.from_numpy(labels)  # (n, C, S, S), (n,)
    mean, std = (torch.tensor(part)[:, None, None] for part in channel_statistics(z))  # (C, 1, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FlowTransformer(
            channels=z.shape[1],
            side=z.shape[2],
            num_classes=num_classes,
            num_layers=num_layers,
            num_heads=num_heads,
            head_dim=head_dim,
            patch_size=patch_size,
            latents_mean=mean.flatten().tolist(),
            latents_std=std.flatten().tolist(),
        )
    device = best_device()
    network = torch.compile(model.to(device)) if is_compiling() else model.to(device)
    fast = multiplies_faster_in_bfloat16(device)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    optimizer.register_step_pre_hook(lambda *_: _clip(model))
    # θ̄ ← d·θ̄ + (1 − d)·θ, faster at the start
    average = EMAModel(model.parameters(), decay=math.exp(-1 / (AVERAGED * num_steps)), foreach=True)

    def velocity_loss(z_t: torch.Tensor, t: torch.Tensor, condition: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast):
            predicted = network(z_t, t, condition)  # (B, C, S, S)
        return F.mse_loss(predicted.float(), v)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(latents), (batch_size,), generator=generator)  # (B,)
        t = logit_normal(batch_size, generator)  # (B,)
        clean = (latents[chosen].float() - mean) / std  # (B, C, S, S)
        noise = torch.randn(clean.shape, generator=generator)  # ε ~ N(0, I)
        dropped = torch.rand(batch_size, generator=generator) < label_dropout
        condition = torch.where(dropped, num_classes, y[chosen])  # (B,), no class for guidance (arXiv 2207.12598)
        noised = torch.lerp(clean, noise, t[:, None, None, None])  # z_t = (1 − t)·z + t·ε
        batch = [sent(part, device) for part in (noised, t, condition, noise - clean)]  # v = dz_t/dt = ε − z
        return mean_loss(velocity_loss, batch, list(model.parameters()), each, PART)

    with single_threads(num_threads) as each:
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
    return model.requires_grad_(False).eval(), losses


def _clip(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)


def logit_normal(num: int, generator: torch.Generator) -> torch.Tensor:
    """Times (num,) in (0, 1), most of them in the middle (arXiv 2403.03206)."""
    return torch.randn(num, generator=generator).sigmoid()


def channel_statistics(z: NDArray[np.float16]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation (C,) float32 of each channel of latents (n, C, S, S), summed in float64."""
    mean = [z[:, c].mean(dtype=np.float64) for c in range(z.shape[1])]
    std = [max(z[:, c].std(dtype=np.float64), 1e-6) for c in range(z.shape[1])]
    return np.array(mean, np.float32), np.array(std, np.float32)
