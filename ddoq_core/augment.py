"""Augmentation of whole batches on the device, with the randomness of an explicit generator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def augment(
    x: torch.Tensor,
    generator: torch.Generator,
    *,
    shift_px: int = 0,
    resized_crop: tuple[float, float] | None = None,
    flip: bool = False,
) -> torch.Tensor:
    """Pictures x (B, 3, S, S), each shifted, cropped and mirrored on its own.

    shift_px      by at most this many pixels in both directions, edges repeated
    resized_crop  (smallest, largest) share of the area, aspect ratio 3/4 to 4/3, resized to S (RandomResizedCrop)
    """
    if shift_px:
        x = _shift(x, shift_px, generator)
    if resized_crop:
        x = _resized_crop(x, resized_crop, generator)
    if flip:
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(mirrored.view(-1, 1, 1, 1).to(x.device), x.flip(-1), x)
    return x


def cutmix(x: torch.Tensor, w: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """One box of a permuted batch pasted into every picture (arXiv 1905.04899, Beta(1, 1)), and the mixed weights.

    w ← a·w + (1 − a)·w_perm with a the share of the area that is kept. x (B, 3, S, S), w (B,).
    """
    size = x.shape[-1]
    side = size * math.sqrt(1 - torch.rand(1, generator=generator).item())
    cy, cx = (torch.rand(2, generator=generator) * size).tolist()
    top, bottom = (max(0, min(size, round(cy + d))) for d in (-side / 2, side / 2))
    left, right = (max(0, min(size, round(cx + d))) for d in (-side / 2, side / 2))
    other = torch.randperm(len(x), generator=generator).to(x.device)
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x[other, :, top:bottom, left:right]
    a = 1 - (bottom - top) * (right - left) / size**2
    return mixed, a * w + (1 - a) * w[other]


def _shift(x: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    size = x.shape[-1]
    padded = F.pad(x, (most,) * 4, mode="replicate")
    dy, dx = torch.randint(0, 2 * most + 1, (2, len(x)), generator=generator).to(x.device)
    at = torch.arange(size, device=x.device)
    rows, cols = (dy[:, None] + at)[:, :, None], (dx[:, None] + at)[:, None, :]  # (B, S, 1), (B, 1, S)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows, cols].permute(0, 3, 1, 2).contiguous()


def _resized_crop(x: torch.Tensor, area: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    share, ratio, ty, tx = torch.rand(4, len(x), generator=generator)
    share = area[0] + share * (area[1] - area[0])
    ratio = torch.exp((2 * ratio - 1) * math.log(4 / 3))
    h, w = (share / ratio).sqrt().clamp(max=1), (share * ratio).sqrt().clamp(max=1)
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = w, h
    theta[:, 0, 2], theta[:, 1, 2] = (2 * tx - 1) * (1 - w), (2 * ty - 1) * (1 - h)
    grid = F.affine_grid(theta.to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
