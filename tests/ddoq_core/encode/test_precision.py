"""In which floating-point type an autoencoder encodes: chosen on real images, and never for the worse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from ddoq_core.encode import precision
from ddoq_core.encode.autoencoder import KLAutoencoder, encode
from ddoq_core.encode.precision import choose_dtype, fast_dtype, latent_error


@pytest.fixture
def model() -> KLAutoencoder:
    torch.manual_seed(0)
    return KLAutoencoder(AutoencoderKL(block_out_channels=(32,)))


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)


def test_auto_takes_the_devices_fast_type_where_its_latents_are_near(
    model: KLAutoencoder, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "MAX_LATENT_ERROR", 1.0)
    assert choose_dtype(model, "auto", images)[0] == fast_dtype(torch.device("cpu"))
    monkeypatch.setattr(precision, "MAX_LATENT_ERROR", 0.0)
    assert choose_dtype(model, "auto", images) == (torch.float32, 0.0)


def test_a_type_that_is_asked_for_is_taken_and_its_error_told(model: KLAutoencoder, images: NDArray[np.uint8]) -> None:
    dtype, error = choose_dtype(model, "bfloat16", images)
    assert dtype == torch.bfloat16 and 1e-4 < error < 0.2
    assert choose_dtype(model, "float32", images) == (torch.float32, 0.0)


def test_latents_that_are_not_finite_are_never_taken_unasked(model: KLAutoencoder, images: NDArray[np.uint8]) -> None:
    model.network.encoder.conv_in.weight.data *= 1e30
    assert choose_dtype(model, "float16", images) == (torch.float16, float("inf"))
    assert choose_dtype(model, "auto", images) == (torch.float32, 0.0)


def test_half_precision_is_near_and_leaves_the_exact_network_alone(
    model: KLAutoencoder, images: NDArray[np.uint8]
) -> None:
    before = encode(model, images, dtype=np.float32)
    half = model.at_precision(torch.bfloat16)
    assert half.dtype == torch.bfloat16 and model.dtype == torch.float32
    assert 0 < latent_error(half, model, images) < 0.05
    np.testing.assert_array_equal(encode(model, images, dtype=np.float32), before)


def test_latents_that_are_not_finite_have_an_infinite_error(model: KLAutoencoder, images: NDArray[np.uint8]) -> None:
    broken = model.at_precision(torch.bfloat16)
    broken.network.quant_conv.bias.data[0] = float("nan")
    assert latent_error(broken, model, images) == float("inf")
