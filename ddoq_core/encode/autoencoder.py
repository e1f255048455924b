"""Autoencoders whose latents are quantised: diffusers' AutoencoderKL, -Tiny and -DC, TAEF2, and our own.

All are used alike: pictures are (B, 3, S, S) in [0, 1], latents are z = (E(x) − shift) · scale with the
autoencoder's own factors, as its diffusion prior expects them.
"""

from __future__ import annotations

import copy
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from numpy.typing import NDArray
from torch import nn

from ddoq_core.devices import best_device, is_compiling
from ddoq_core.encode.components import ComponentsAutoencoder
from ddoq_core.encode.taef2 import DOWNSCALE, LATENT_CHANNELS, TAEF2, WIDTH
from ddoq_core.errors import InvalidInput
from ddoq_core.images import to_uint8
from ddoq_core.loading import load_pretrained_network
from ddoq_core.memory import HalvingBatches
from ddoq_core.seeds import derive_seed

PIXELS_AT_ONCE = {"cpu": 2**16, "cuda": 2**24}  # as measured: on a CPU what a layer makes should stay in its cache
MOST_ELEMENTS = 2**30  # that a layer makes at once: from 2³¹ on, GPU kernels fail or are slow, and some layers pad


class Autoencoder(ABC):
    """A network and its conventions. `downscale` is pixels per latent position, `widest` the most channels of a layer
    at the images' own size; on a CPU images of `channels_last_px` and more are encoded in the layout channels last,
    smaller ones in the usual one."""

    channels_last_px: ClassVar = 0
    latent_channels: int
    downscale: int
    widest: int
    shift: float
    scale: float

    def __init__(self, network: Any) -> None:
        self.network: Any = network.eval().requires_grad_(False).to(best_device())
        parameter = next(self.network.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    @abstractmethod
    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean and standard deviation (None where the encoder gives a point) of E(x), unscaled, of float32 x."""

    @abstractmethod
    def pictures(self, z: torch.Tensor) -> torch.Tensor:
        """Pictures in [0, 1], not clipped, of unscaled latents."""

    def at_precision(self, dtype: torch.dtype) -> Self:
        """A copy that computes in another floating-point type."""
        return type(self)(nn.Module.to(copy.deepcopy(self.network), dtype))

    def compiled(self) -> Self:
        """Itself, its encoder put through torch.compile where that is asked for (see ddoq_core.devices)."""
        if is_compiling():
            self.network.encoder.compile()
        return self

    def latent_shape(self, size_px: int) -> tuple[int, int, int]:
        """(C, H, W) of the latents of images of size_px. Raises ValueError where the size does not divide."""
        if size_px % self.downscale:
            raise ValueError(f"images of {size_px} px do not divide by the autoencoder's factor {self.downscale}")
        return (self.latent_channels, size_px // self.downscale, size_px // self.downscale)

    def batch_size(self, size_px: int) -> int:
        """Images that are encoded, or latents of them that are decoded, together."""
        fast = PIXELS_AT_ONCE.get(self.device.type, 2**20) // size_px**2
        return int(np.clip(min(fast, self.most_at_once(size_px)), 1, 256))

    def most_at_once(self, size_px: int) -> int:
        """Images of which no layer makes more than MOST_ELEMENTS, or one."""
        return max(1, MOST_ELEMENTS // (self.widest * size_px**2))


class KLAutoencoder(Autoencoder):
    """AutoencoderKL (arXiv 2112.10752), the autoencoder of Stable Diffusion and of DiT."""

    channels_last_px = 64  # as measured: its many group norms are slow in bfloat16 and channels last

    def __init__(self, network: AutoencoderKL) -> None:
        super().__init__(network)
        config = network.config
        self.latent_channels, self.downscale = config.latent_channels, 2 ** (len(config.block_out_channels) - 1)
        self.widest = max(config.block_out_channels[:2])  # the decoder brings the second to full size
        self.shift, self.scale = config.shift_factor or 0.0, config.scaling_factor

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        found = self.network.encode((x * 2 - 1).to(self.dtype)).latent_dist  # of x in [−1, 1]
        return found.mean, found.std  # μ, σ (B, C, H, W), diagonal

    def pictures(self, z: torch.Tensor) -> torch.Tensor:
        return self.network.decode(z).sample.float() / 2 + 0.5


class TinyAutoencoder(Autoencoder):
    """AutoencoderTiny (github.com/madebyollin/taesd), a fast stand-in for the autoencoder of Stable Diffusion, and what
    is built on it."""

    def __init__(self, network: AutoencoderTiny | ComponentsAutoencoder) -> None:
        super().__init__(network)
        config = network.config
        self.latent_channels = config.latent_channels
        self.downscale = 2 ** (len(config.encoder_block_out_channels) - 1)
        self.widest = max(*config.encoder_block_out_channels[:2], *config.decoder_block_out_channels[-2:])
        self.shift, self.scale = config.shift_factor or 0.0, config.scaling_factor

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.network.encode((x * 2 - 1).to(self.dtype)).latents, None

    def pictures(self, z: torch.Tensor) -> torch.Tensor:
        return self.network.decode(z).sample.float() / 2 + 0.5


class DCAutoencoder(Autoencoder):
    """AutoencoderDC (arXiv 2410.10733), the autoencoder of Sana, of 32 pixels a position."""

    shift = 0.0

    def __init__(self, network: AutoencoderDC) -> None:
        super().__init__(network)
        config = network.config
        self.latent_channels, self.scale = config.latent_channels, config.scaling_factor
        self.downscale = 2 ** (len(config.encoder_block_out_channels) - 1)
        self.widest = max(*config.encoder_block_out_channels[:2], *config.decoder_block_out_channels[:2])

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.network.encode((x * 2 - 1).to(self.dtype)).latent, None

    def pictures(self, z: torch.Tensor) -> torch.Tensor:
        return self.network.decode(z).sample.float() / 2 + 0.5


class Flux2TinyAutoencoder(Autoencoder):
    """TAEF2, a fast stand-in for the autoencoder of FLUX.2."""

    latent_channels, downscale, widest, shift, scale = LATENT_CHANNELS, DOWNSCALE, WIDTH, 0.0, 1.0
    FILES: ClassVar = ("encoder.safetensors", "decoder.safetensors")

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.network.encode(x.to(self.dtype)), None

    def pictures(self, z: torch.Tensor) -> torch.Tensor:
        return self.network.decode(z).float()


KINDS: dict[str, tuple[Any, type[Autoencoder]]] = {
    "AutoencoderKL": (AutoencoderKL, KLAutoencoder),
    "AutoencoderTiny": (AutoencoderTiny, TinyAutoencoder),
    "AutoencoderDC": (AutoencoderDC, DCAutoencoder),
    "ComponentsAutoencoder": (ComponentsAutoencoder, TinyAutoencoder),
}


def load_autoencoder(weights: str | Path, subfolder: str | None = None) -> Autoencoder:
    """From a diffusers folder or hub name, or a folder of TAEF2's two files.

    Raises OSError where there is none, InvalidInput for another class of autoencoder or tensors that do not fit.
    """
    folder = Path(weights) / (subfolder or "")
    if all((folder / name).is_file() for name in Flux2TinyAutoencoder.FILES):
        return Flux2TinyAutoencoder(TAEF2.load(folder))
    kind = AutoencoderKL.load_config(str(weights), subfolder=subfolder).get("_class_name", "AutoencoderKL")
    if kind not in KINDS:
        raise InvalidInput(f"it is a {kind}; there are {', '.join(KINDS)} and TAEF2")
    network, adapter = KINDS[kind]
    return adapter(load_pretrained_network(network, weights, subfolder))


def encode(
    model: Autoencoder, images: NDArray[np.uint8], *, batch_size: int | None = None, dtype: type = np.float16
) -> NDArray[np.float16]:
    """Posterior means of images (n, S, S, 3) uint8 as scaled latents (n, C, H, W) (paper, step 1: Z = E(T))."""
    size = batch_size or model.batch_size(images.shape[1])
    batches = (images[start : start + size] for start in range(0, len(images), size))
    return np.concatenate([z.astype(dtype) for z in encode_batches(model, batches)])


def encode_batches(
    model: Autoencoder, batches: Iterable[NDArray[np.uint8]], *, sample: tuple[Any, ...] | None = None
) -> Iterator[NDArray[np.float32]]:
    """Scaled latents (B, C, H, W) float32 of each batch of images (B, S, S, 3) uint8, in order.

    A batch is fetched from the device when the next one has been handed to it, so a GPU is never waited for. One that
    does not fit into memory is done in halves.

    sample  draw from the posterior instead of taking its mean; what the noise is seeded with
    """
    halving, waiting = HalvingBatches(sys.maxsize), None
    for k, batch in enumerate(batches):
        noise = [] if sample is None else [_noise(model, batch, derive_seed(*sample, k))]
        z = halving.map(partial(_latents, model), batch, *noise)
        if waiting is not None:
            yield waiting.float().cpu().numpy()
        waiting = z
    if waiting is not None:
        yield waiting.float().cpu().numpy()


def _noise(model: Autoencoder, images: NDArray[np.uint8], seed: int) -> torch.Tensor:
    """ε (B, C, H, W) of a whole batch, drawn on the CPU: every device alike."""
    shape = (len(images), *model.latent_shape(images.shape[1]))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def _latents(model: Autoencoder, images: NDArray[np.uint8], noise: torch.Tensor | None = None) -> torch.Tensor:
    x = torch.from_numpy(images).to(model.device, non_blocking=True)
    x = x.permute(0, 3, 1, 2).float().div_(255)  # (B, 3, S, S), channels last
    if model.device.type == "cpu" and x.shape[-1] < model.channels_last_px:
        x = x.contiguous()
    mean, std = model.posterior(x)
    if noise is not None and std is not None:
        mean = mean + std * noise.to(mean)  # μ + σ·ε
    return (mean - model.shift) * model.scale  # (B, C, H, W)


@torch.inference_mode()
def pictures_of(model: Autoencoder, z: torch.Tensor) -> NDArray[np.uint8]:
    """The pictures D(z) as (n, S, S, 3) uint8 of scaled latents (n, C, H, W)."""
    unscaled = z.to(model.device, model.dtype) / model.scale + model.shift  # inverts (E(x) − shift)·scale
    return to_uint8(model.pictures(unscaled))


def reconstruction_psnr(model: Autoencoder, images: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of the images that come back from their latents."""
    size, squares = model.batch_size(images.shape[1]), 0.0
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        again = pictures_of(model, torch.from_numpy(encode(model, batch, dtype=np.float32)))
        squares += np.square(again.astype(np.float64) - batch).sum()  # whole numbers, so no batches show in the sum
    mse = squares / images.size  # over n, S, S and 3
    return float(10 * np.log10(255**2 / max(mse, 1e-12)))  # 10·log₁₀(MAX²/MSE)
