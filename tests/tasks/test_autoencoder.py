"""In which floating-point type a stage will encode: chosen once, on real images, and never for the worse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from ddoq_core.encode import precision
from ddoq_core.encode.autoencoder import KLAutoencoder
from ddoq_core.encode.precision import fast_dtype
from tasks import autoencoder as stage
from tasks.inputs.given import WeightsError
from tasks.recipe.settings import GivenAutoencoder


@pytest.fixture
def model() -> KLAutoencoder:
    torch.manual_seed(0)
    return KLAutoencoder(AutoencoderKL(block_out_channels=(32,)))


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)


def config(asked: str) -> GivenAutoencoder:
    return GivenAutoencoder.model_validate({"weights": "somewhere", "precision": asked})


def test_auto_takes_the_devices_fast_type_where_its_latents_are_near(
    model: KLAutoencoder, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "MAX_LATENT_ERROR", 1.0)
    found = stage._precision(model, config("auto"), images)
    assert found["precision"] == str(fast_dtype(torch.device("cpu"))).removeprefix("torch.")
    monkeypatch.setattr(precision, "MAX_LATENT_ERROR", 0.0)
    assert stage._precision(model, config("auto"), images) == {"precision": "float32", "latent_error": 0.0}


def test_a_type_that_is_asked_for_is_taken_and_its_error_recorded(
    model: KLAutoencoder, images: NDArray[np.uint8]
) -> None:
    found = stage._precision(model, config("bfloat16"), images)
    assert found["precision"] == "bfloat16" and 1e-4 < found["latent_error"] < 0.2
    assert stage._precision(model, config("float32"), images) == {"precision": "float32", "latent_error": 0.0}


def test_a_type_whose_latents_are_not_finite_is_refused(model: KLAutoencoder, images: NDArray[np.uint8]) -> None:
    model.network.encoder.conv_in.weight.data *= 1e30
    with pytest.raises(WeightsError, match=r"autoencoder\.precision=float16 gives latents that are not finite: set"):
        stage._precision(model, config("float16"), images)
    assert stage._precision(model, config("auto"), images)["precision"] == "float32"
