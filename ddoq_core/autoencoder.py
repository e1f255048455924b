"""The autoencoder whose latents are quantised: any diffusers AutoencoderKL, loaded or trained here.

Latents are z = (E(x) − shift) · scale with the autoencoder's own factors, as its diffusion prior expects them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from ddoq_core.devices import best_device
from ddoq_core.fitting import Keeper, fit, one_cycle
from ddoq_core.images import to_uint8, to_unit


def load_autoencoder(weights: str | Path, subfolder: str | None = None) -> AutoencoderKL:
    """From a diffusers folder or hub name. Raises OSError where there is none."""
    model = AutoencoderKL.from_pretrained(weights, subfolder=subfolder, low_cpu_mem_usage=False)
    return model.eval().requires_grad_(False).to(best_device())


def train_autoencoder(
    images: NDArray[np.uint8],
    *,
    channels: tuple[int, ...],
    latent_channels: int,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    kl_weight: float,
    seed: int,
    keeper: Keeper,
) -> tuple[AutoencoderKL, list[float]]:
    """A small AutoencoderKL (arXiv 2112.10752, without its adversarial and perceptual losses) for images (n, S, S, 3).

    Its factors are set so that the latents of the images have mean 0 and standard deviation 1.
    """
    x = to_unit(images) * 2 - 1  # (n, 3, S, S)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_autoencoder(channels, latent_channels, size_px=x.shape[-1]).to(best_device())
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.01)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        batch = x[torch.randint(len(x), (batch_size,), generator=generator)].to(model.device)
        posterior = model.encode(batch).latent_dist
        decoded = model.decode(posterior.sample(generator)).sample
        return F.mse_loss(decoded, batch) + kl_weight * posterior.kl().mean()

    schedule = one_cycle(optimizer, learning_rate, num_steps)
    losses = fit(loss, num_steps, model=model, optimizer=optimizer, schedule=schedule, seed=seed, keeper=keeper)
    model.eval().requires_grad_(False)
    z = torch.from_numpy(encode(model, images, dtype=np.float32))
    model.register_to_config(shift_factor=float(z.mean()), scaling_factor=float(1 / z.std()))
    return model, losses


@torch.inference_mode()
def encode(
    model: AutoencoderKL, images: NDArray[np.uint8], *, batch_size: int = 64, dtype: type = np.float16
) -> NDArray[np.float16]:
    """Posterior means of images (n, S, S, 3) uint8 as scaled latents (n, C, H, W) (paper, step 1: Z = E(T))."""
    shift, scale = _factors(model)
    latents = []
    for start in range(0, len(images), batch_size):
        x = to_unit(images[start : start + batch_size]).to(model.device, model.dtype) * 2 - 1
        z = (model.encode(x).latent_dist.mean - shift) * scale
        latents.append(z.float().cpu().numpy().astype(dtype))
    return np.concatenate(latents)


@torch.inference_mode()
def decode(model: AutoencoderKL, z: torch.Tensor) -> NDArray[np.uint8]:
    """Images (n, S, S, 3) uint8 of scaled latents (n, C, H, W)."""
    shift, scale = _factors(model)
    x = model.decode((z.to(model.device, model.dtype) / scale) + shift).sample
    return to_uint8(x.float() / 2 + 0.5)


def latent_shape(model: AutoencoderKL, size_px: int) -> tuple[int, int, int]:
    """(C, H, W) of the latents of images of size_px. Raises ValueError where the size does not divide."""
    factor = 2 ** (len(model.config.block_out_channels) - 1)
    if size_px % factor:
        raise ValueError(f"images of {size_px} px do not divide by the autoencoder's factor {factor}")
    return (model.config.latent_channels, size_px // factor, size_px // factor)


def reconstruction_psnr(model: AutoencoderKL, images: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of the images after encoding and decoding."""
    decoded = decode(model, torch.from_numpy(encode(model, images, dtype=np.float32)))
    mse = np.square(decoded.astype(np.float64) - images).mean()
    return float(10 * np.log10(255**2 / max(mse, 1e-12)))


def _new_autoencoder(channels: tuple[int, ...], latent_channels: int, size_px: int) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=size_px,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def _factors(model: AutoencoderKL) -> tuple[float, float]:
    return model.config.shift_factor or 0.0, model.config.scaling_factor
