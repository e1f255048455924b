"""Images as every stage sees them: uint8 RGB arrays of one size."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps


def preprocess(
    image: Image.Image,
    size_px: int,
    resize: Literal["crop", "squash"] = "crop",
    center_crop: float | None = None,
) -> NDArray[np.uint8]:
    """An RGB image as (size_px, size_px, 3) uint8, antialiased.

    resize       "crop": the short side is brought to size_px and the centre kept; "squash": the aspect ratio is given
                 up, by torchvision's Resize((size_px, size_px)) as D4M does (arXiv 2407.15138, published code)
    center_crop  a share of the short side: torchvision's Resize(size_px / center_crop) and CenterCrop(size_px), with
                 its bilinear filter, in the place of `resize`; 0.875 is Resize(256), CenterCrop(224)
    """
    if center_crop is not None:
        from torchvision.transforms import functional

        return np.asarray(functional.center_crop(functional.resize(image, round(size_px / center_crop)), [size_px]))
    if resize == "squash":
        return np.asarray(image.resize((size_px, size_px), Image.Resampling.BILINEAR), dtype=np.uint8)
    return np.asarray(ImageOps.fit(image, (size_px, size_px), Image.Resampling.BICUBIC), dtype=np.uint8)


def resized(
    images: NDArray[np.uint8], size_px: int, resample: Image.Resampling = Image.Resampling.BICUBIC
) -> NDArray[np.uint8]:
    """Square images (n, S, S, 3) brought to size_px, antialiased, by default bicubic as D4M saves its pictures; as they
    are where they have it."""
    if images.shape[1] == size_px:
        return images
    return np.stack([np.asarray(Image.fromarray(image).resize((size_px, size_px), resample)) for image in images])


def to_mosaics(tiles: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Tiles (n·side², s, s, 3) → pictures (n, side·s, side·s, 3), each of side² that follow each other, row by row."""
    s = tiles.shape[1]
    x = tiles.reshape(-1, side, side, s, s, 3).swapaxes(2, 3)  # (n, row, y, column, x, 3)
    return x.reshape(-1, side * s, side * s, 3)


def to_tiles(mosaics: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Mosaics (n, S, S, 3) → what a student sees of them, (n·side², S, S, 3): the tiles in their order, brought up to S
    bilinearly as IDC's multi-formation does (arXiv 2205.14959). RDED's (arXiv 2312.03526) shuffles them and crops over
    their borders."""
    size_px = mosaics.shape[1]
    s = size_px // side
    x = mosaics.reshape(-1, side, s, side, s, 3).swapaxes(2, 3)  # (n, row, column, y, x, 3)
    return resized(x.reshape(-1, s, s, 3), size_px, Image.Resampling.BILINEAR)


def to_unit(images: NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
    """(n, S, S, 3) uint8 → (n, 3, S, S) float32 in [0, 1], on the device where they are."""
    x = images if isinstance(images, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(images))
    return x.permute(0, 3, 1, 2).float().div_(255).contiguous()


def to_uint8(x: torch.Tensor) -> NDArray[np.uint8]:
    """(n, 3, S, S) floats in [0, 1], clipped and rounded → (n, S, S, 3) uint8."""
    rounded = x.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.asarray(rounded.permute(0, 2, 3, 1).contiguous().cpu().numpy())
