"""In which floating-point type an autoencoder encodes: the fastest whose latents are near float32's."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ddoq_core.devices import multiplies_faster_in_bfloat16
from ddoq_core.encode.autoencoder import Autoencoder, encode

Precision = Literal["auto", "float32", "bfloat16", "float16"]
MAX_LATENT_ERROR = 0.02  # relative, over which a fast floating-point type is not taken unasked


def choose_dtype(model: Autoencoder, precision: Precision, images: NDArray[np.uint8]) -> tuple[torch.dtype, float]:
    """The floating-point type to encode in, and its relative error on images (n, S, S, 3). `model` is in float32.

    precision  "auto": the device's fastest whose error is small, else float32; or a type by name, whose error is
               infinite where its latents are not finite
    """
    dtype = fast_dtype(model.device) if precision == "auto" else getattr(torch, precision)
    error = 0.0 if dtype == torch.float32 else latent_error(model.at_precision(dtype), model, images)
    if precision == "auto" and error > MAX_LATENT_ERROR:
        return torch.float32, 0.0
    return dtype, error


def fast_dtype(device: torch.device) -> torch.dtype:
    """The floating-point type that the device multiplies fastest: bfloat16 where it can, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if multiplies_faster_in_bfloat16(device) else torch.float32


def latent_error(model: Autoencoder, exact: Autoencoder, images: NDArray[np.uint8]) -> float:
    """‖z − z_exact‖ / ‖z_exact‖ over the latents of images (n, S, S, 3), infinite where z is not finite."""
    z, expected = (encode(m, images, dtype=np.float32) for m in (model, exact))
    error = float(np.linalg.norm(z - expected) / np.linalg.norm(expected))
    return error if np.isfinite(error) else float("inf")
