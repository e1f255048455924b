"""TAEF2, a small pretrained autoencoder (MIT, Ollin Boer Bohan, github.com/madebyollin/taesd).

Owns the two networks and the loading of their weights. Images are RGB in [0, 1], (B, 3, H, W); latents are
(B, 32, H/8, W/8). The modules are indexed as the files' tensors are, so the weights load by name.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ddoq_core.loading import fill, read_tensors

WIDTH = 64
LATENT_CHANNELS = 32
DOWNSCALE = 8


class Block(nn.Module):
    """x → ReLU(f(x) + x), f three convolutions; `pooled` puts x ← x + P(x) first, P 1×1."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        self.pool = _pooled_branch() if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """Soft limit of latents to (−3, 3)."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z / 3) * 3


class TAEF2(nn.Module):
    """`encode` images to latents and `decode` latents to images."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _encoder()
        self.decoder = _decoder()

    @classmethod
    def load(cls, folder: str | Path) -> TAEF2:
        """The pretrained networks of `folder`: float32, on CPU, in eval mode.

        Raises FileNotFoundError without encoder.safetensors and decoder.safetensors, InvalidInput where their
        tensors do not fit.
        """
        model = cls()
        for name, half in (("encoder", model.encoder), ("decoder", model.decoder)):
            path = Path(folder) / f"{name}.safetensors"
            fill(half, read_tensors(path), path)
        return model.eval().requires_grad_(False)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, 32, H/8, W/8) of images (B, 3, H, W) in [0, 1]; H and W must be multiples of 8."""
        if images.shape[-1] % DOWNSCALE or images.shape[-2] % DOWNSCALE:
            raise ValueError(f"image sides must be multiples of {DOWNSCALE} px, got {tuple(images.shape[-2:])}")
        latents: Tensor = self.encoder(images)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, 8h, 8w) in [0, 1] of latents (B, 32, h, w)."""
        images: Tensor = self.decoder(latents)
        return images.clamp(0, 1)


def _conv(bias: bool = True, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1, stride=stride, bias=bias)


def _pooled_branch() -> nn.Sequential:
    wide = 4 * WIDTH
    return nn.Sequential(
        nn.Conv2d(WIDTH, wide, 1, bias=False),
        nn.GroupNorm(4, wide),
        nn.ReLU(),
        nn.Conv2d(wide, WIDTH, 1, bias=False),
    )


def _blocks(pooled: bool = False) -> list[nn.Module]:
    return [Block(pooled) for _ in range(3)]


def _encoder() -> nn.Sequential:
    down = [[_conv(bias=False, stride=2), *_blocks(pooled)] for pooled in (False, False, True)]
    return nn.Sequential(
        nn.Conv2d(3, WIDTH, 3, padding=1),
        Block(),
        *(layer for stage in down for layer in stage),
        nn.Conv2d(WIDTH, LATENT_CHANNELS, 3, padding=1),
    )


def _decoder() -> nn.Sequential:
    up = [[*_blocks(pooled), nn.Upsample(scale_factor=2), _conv(bias=False)] for pooled in (True, False, False)]
    return nn.Sequential(
        Clamp(),
        nn.Conv2d(LATENT_CHANNELS, WIDTH, 3, padding=1),
        nn.ReLU(),
        *(layer for stage in up for layer in stage),
        Block(),
        nn.Conv2d(WIDTH, 3, 3, padding=1),
    )
