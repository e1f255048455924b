"""A small autoencoder of the recipe's own, for images that no pretrained one was made for."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from ddoq_core.devices import best_device, convolves_well_in_bfloat16, sent
from ddoq_core.encode.autoencoder import Autoencoder, KLAutoencoder, TinyAutoencoder, encode
from ddoq_core.encode.components import ComponentsAutoencoder
from ddoq_core.fitting import Checkpoint, fit, one_cycle
from ddoq_core.images import to_unit
from ddoq_core.parallel import mean_loss, single_threads

PART, OWN_PART = 8, 16  # images that a core takes at a time: of 32 px, as fast as more of them


def train_autoencoder(
    images: NDArray[np.uint8],
    *,
    kind: str = "kl",
    channels: tuple[int, ...],
    latent_channels: int,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    kl_weight: float,
    seed: int,
    checkpoint: Checkpoint,
    num_threads: int = 1,
) -> tuple[Autoencoder, list[float]]:
    """A small autoencoder for images (n, S, S, 3), and the mean loss of each twentieth of the steps.

    kind  "kl": an AutoencoderKL (arXiv 2112.10752, without its adversarial and perceptual losses); "components": a
          ComponentsAutoencoder, without kl_weight
    Its factors are set so that the latents of the images have mean 0 and standard deviation 1. The bits are the same
    for any num_threads.
    """
    x = to_unit(images) * 2 - 1  # (n, 3, S, S)
    device, own = best_device(), kind == "components"
    adapter = TinyAutoencoder if own else KLAutoencoder
    fast = convolves_well_in_bfloat16(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (_new_components if own else _new_kl)(channels, latent_channels, x.shape[-1])
        if own:
            model.start(x)
    model = model.to(device)
    if own:  # without norms, all of it is faster so
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.01)

    def own_loss(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast):
            again = model.decode(model.encode(x).latents).sample  # x̂ = D(E(x))
        return F.mse_loss(again.float(), x)

    def kl_loss(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        posterior = model.encode(x).latent_dist  # q(z|x) = N(μ, σ²)
        again = model.decode(posterior.mean + posterior.std * noise).sample  # x̂ = D(μ + σ·ε)
        # ‖x̂ − x‖² as a mean over pixels, KL(q ‖ N(0, I)) as a sum over a latent: kl_weight is of that scale
        return F.mse_loss(again, x) + kl_weight * posterior.kl().mean()

    side = x.shape[-1] // 2 ** (len(channels) - 1)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(x), (batch_size,), generator=generator)  # (B,)
        batch = [sent(x[chosen], device)]
        if not own:
            batch += [sent(torch.randn(batch_size, latent_channels, side, side, generator=generator), device)]  # ε
        part = OWN_PART if own else PART
        return mean_loss(own_loss if own else kl_loss, batch, list(model.parameters()), each, part)

    schedule = one_cycle(optimizer, learning_rate, num_steps)
    with single_threads(num_threads) as each:
        losses = fit(
            loss, num_steps, model=model, optimizer=optimizer, schedule=schedule, seed=seed, checkpoint=checkpoint
        )
    model = model.to(memory_format=torch.contiguous_format)
    z = encode(adapter(model), images, dtype=np.float32)  # with shift 0 and scale 1 as yet
    model.register_to_config(shift_factor=float(z.mean()), scaling_factor=float(1 / z.std()))
    return adapter(model), losses


def _new_kl(channels: tuple[int, ...], latent_channels: int, size_px: int) -> AutoencoderKL:
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


def _new_components(channels: tuple[int, ...], latent_channels: int, size_px: int) -> ComponentsAutoencoder:
    """Most of its layers are at the latents' side: as many at the pictures' would take most of the time."""
    blocks = (0, *(1 for _ in channels[2:]), 3)[-len(channels) :]
    return ComponentsAutoencoder(
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks[::-1],
        latent_channels=latent_channels,
    )
