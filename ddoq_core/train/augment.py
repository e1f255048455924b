"""Augmentation of whole batches on the device: first what chance decides is drawn, then it is done to the pictures.

What was drawn can be kept, and the same batch made again from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ddoq_core.devices import sent
from ddoq_core.train.protocol import Augmentation

ATTEMPTS = 10  # torchvision's


@dataclass(frozen=True)
class Draws:
    """What chance decided for a batch of B pictures. None where nothing is done. On the CPU.

    shift    (B, 2) int64, pixels down and right
    crop     (B, 4) float32: height and width as shares of the side, then the centre (y, x) in [-1, 1]
    flip     (B,) bool
    box      (4,) int64: top, bottom, left, right in pixels of what CutMix replaces in every picture
    partner  (B,) int64: the picture of the batch that it is replaced by
    """

    shift: torch.Tensor | None = None
    crop: torch.Tensor | None = None
    flip: torch.Tensor | None = None
    box: torch.Tensor | None = None
    partner: torch.Tensor | None = None

    def kept(self, size_px: int) -> float:
        """The share of a picture's area that CutMix leaves."""
        if self.box is None:
            return 1.0
        top, bottom, left, right = self.box.tolist()
        return 1 - (bottom - top) * (right - left) / size_px**2

    def other(self, values: torch.Tensor) -> torch.Tensor:
        """The partners' values (B, ...), of pictures without a partner their own."""
        return values if self.partner is None else values[sent(self.partner, values.device)]

    def mix(self, values: torch.Tensor, size_px: int) -> torch.Tensor:
        """a·v + (1 − a)·v_partner of values (B,), with a the share that is kept."""
        a = self.kept(size_px)
        return values if self.box is None else a * values + (1 - a) * self.other(values)  # (B,)


def draw(num_images: int, size_px: int, augmentation: Augmentation, generator: torch.Generator) -> Draws:
    """Draw for a batch of pictures of this side, each on its own, but for CutMix one box and permutation.

    Crops have an aspect ratio of 3/4 to 4/3 (RandomResizedCrop), boxes Beta(1, 1) of the area (arXiv 1905.04899).
    """
    most, area = augmentation.shift_px, augmentation.resized_crop
    # in this order, which is a part of what a seed means: stored labels and cut trainings depend on it
    shift = torch.randint(0, 2 * most + 1, (2, num_images), generator=generator).T - most if most else None
    crop = _draw_crop(num_images, size_px, area, generator) if area else None
    mirrored = torch.rand(num_images, generator=generator) < 0.5 if augmentation.flip else None
    box = _draw_box(size_px, generator) if augmentation.cutmix else None
    partner = torch.randperm(num_images, generator=generator) if augmentation.cutmix else None
    return Draws(shift, crop, mirrored, box, partner)


def apply(x: torch.Tensor, draws: Draws) -> torch.Tensor:
    """The pictures x (B, 3, S, S) shifted, cropped, mirrored and mixed as drawn."""
    if draws.shift is not None:
        x = _shift(x, sent(draws.shift, x.device))
    if draws.crop is not None:
        x = _crop(x, draws.crop)
    if draws.flip is not None:
        x = torch.where(sent(draws.flip, x.device).view(-1, 1, 1, 1), x.flip(-1), x)  # over (B, 3, S, S)
    if draws.box is not None:
        top, bottom, left, right = draws.box.tolist()
        mixed = x.clone()
        mixed[:, :, top:bottom, left:right] = draws.other(x[:, :, top:bottom, left:right])
        x = mixed
    return x


def _draw_crop(num_images: int, size: int, area: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    """Boxes of whole pixels as torchvision's RandomResizedCrop draws them: a share of the area and a ratio until the
    box fits, the whole picture after ten that did not."""
    share, ratio = torch.rand(2, ATTEMPTS, num_images, generator=generator)  # (10, B) each, in [0, 1)
    ty, tx = torch.rand(2, num_images, generator=generator)  # (B,) each
    share = area[0] + share * (area[1] - area[0])  # h·w
    ratio = torch.exp((2 * ratio - 1) * math.log(4 / 3))  # w/h, uniform in its logarithm
    h, w = (share / ratio).sqrt().mul(size).round(), (share * ratio).sqrt().mul(size).round()  # in pixels
    fits = (h <= size) & (w <= size) & (h > 0) & (w > 0)
    first = fits.int().argmax(dim=0, keepdim=True)  # of equal values torch takes the first
    h, w = (torch.where(fits.any(dim=0), side.gather(0, first)[0], size) for side in (h, w))  # (B,)
    top, left = (ty * (size - h + 1)).floor(), (tx * (size - w + 1)).floor()
    return torch.stack([h / size, w / size, (2 * top + h) / size - 1, (2 * left + w) / size - 1], dim=1)  # (B, 4)


def _draw_box(size: int, generator: torch.Generator) -> torch.Tensor:
    side = size * math.sqrt(1 - torch.rand(1, generator=generator).item())  # S·√(1 − λ), λ ~ Beta(1, 1)
    centre = (torch.rand(2, generator=generator) * size).tolist()  # (y, x); the box is cut at the edge
    return torch.tensor([max(0, min(size, round(c + d))) for c in centre for d in (-side / 2, side / 2)])


def _shift(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    size = x.shape[-1]
    at = torch.arange(size, device=x.device)
    rows, cols = ((by[:, None] + at).clamp(0, size - 1) for by in shift.T)  # (B, S)
    pixels = (rows[:, :, None] * size + cols[:, None, :]).view(len(x), 1, -1).expand(-1, 3, -1)  # (B, 3, S·S)
    return x.flatten(2).gather(2, pixels).view(x.shape)  # whole pixels, nothing is interpolated


def _crop(x: torch.Tensor, crop: torch.Tensor) -> torch.Tensor:
    h, w, y, x0 = crop.unbind(1)  # (B,) each
    zero = torch.zeros_like(h)
    theta = torch.stack([torch.stack([w, zero, x0], 1), torch.stack([zero, h, y], 1)], 1)  # (B, 2, 3), in [-1, 1]
    grid = F.affine_grid(sent(theta, x.device), list(x.shape), align_corners=False)  # (B, S, S, 2), where to read
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
