"""Images as every stage sees them: uint8 RGB arrays of one size."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps


def preprocess(image: Image.Image, size_px: int, resize: Literal["crop", "squash"] = "crop") -> NDArray[np.uint8]:
    """An image as (size_px, size_px, 3) uint8 RGB, antialiased.

    resize  "crop": the short side is brought to size_px and the centre kept; "squash": the aspect ratio is given
            up, as D4M does (arXiv 2407.15138, published code)
    """
    image = ImageOps.exif_transpose(image).convert("RGB")
    size = (size_px, size_px)
    fitted = image.resize(size, Image.Resampling.BICUBIC) if resize == "squash" else _fit(image, size)
    return np.asarray(fitted, dtype=np.uint8)


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def to_unit(images: NDArray[np.uint8]) -> torch.Tensor:
    """(n, S, S, 3) uint8 → (n, 3, S, S) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255).contiguous()


def to_uint8(x: torch.Tensor) -> NDArray[np.uint8]:
    """(n, 3, S, S) floats in [0, 1], clipped and rounded → (n, S, S, 3) uint8."""
    rounded = x.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.asarray(rounded.permute(0, 2, 3, 1).contiguous().cpu().numpy())
