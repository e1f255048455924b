"""The autoencoder: trained small, its latents standardised, saved and loaded as diffusers does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from ddoq_core.autoencoder import (
    decode,
    encode,
    latent_shape,
    load_autoencoder,
    reconstruction_psnr,
    train_autoencoder,
)
from ddoq_core.fitting import Keeper
from tests.core.test_fitting import BufferKeeper, Cut

SETTINGS: dict[str, Any] = {
    "channels": (8, 8),
    "latent_channels": 2,
    "num_steps": 80,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "kl_weight": 1e-6,
    "seed": 0,
}


def blobs(n: int = 40, size: int = 8) -> NDArray[np.uint8]:
    """Smooth coloured pictures."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 2, 2, 3)).astype(np.uint8)
    return coarse.repeat(size // 2, 1).repeat(size // 2, 2)


def train(keeper: Keeper, **changes: Any) -> tuple[AutoencoderKL, list[float]]:
    return train_autoencoder(blobs(), **{**SETTINGS, **changes}, keeper=keeper)


@pytest.fixture(scope="module")
def trained() -> tuple[AutoencoderKL, list[float]]:
    return train(BufferKeeper())


def test_training_lowers_the_loss_and_restores_pictures(trained: tuple[AutoencoderKL, list[float]]) -> None:
    model, losses = trained
    assert losses[-1] < 0.7 * losses[0]
    flat = np.broadcast_to(blobs().mean((0, 1, 2)).round().astype(np.uint8), blobs().shape)
    mse = np.square(blobs().astype(float) - flat).mean()
    assert reconstruction_psnr(model, blobs()) > 10 * np.log10(255**2 / mse) + 1  # better than one colour for all
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_latents_are_standardised_and_come_back_through_decode(trained: tuple[AutoencoderKL, list[float]]) -> None:
    model, _ = trained
    z = encode(model, blobs(), dtype=np.float32)
    assert z.shape == (40, *latent_shape(model, 8)) == (40, 2, 4, 4)
    assert z.mean() == pytest.approx(0, abs=1e-4) and z.std() == pytest.approx(1, abs=1e-3)
    with torch.inference_mode():
        x = torch.from_numpy(blobs()).permute(0, 3, 1, 2) / 127.5 - 1
        direct = model.decode(model.encode(x).latent_dist.mean).sample
    expected = ((direct + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(decode(model, torch.from_numpy(z)) - expected).max() <= 0.6  # rounding to uint8


def test_latents_do_not_depend_on_the_batch_and_are_stored_in_half(trained: tuple[AutoencoderKL, list[float]]) -> None:
    whole, parts = (encode(trained[0], blobs(), batch_size=size) for size in (64, 7))
    assert whole.dtype == np.float16
    np.testing.assert_allclose(whole, parts, atol=4e-3)


def test_a_saved_autoencoder_comes_back_equal(trained: tuple[AutoencoderKL, list[float]], tmp_path: Path) -> None:
    model, _ = trained
    model.save_pretrained(tmp_path / "pipeline" / "vae")
    for loaded in (load_autoencoder(tmp_path / "pipeline" / "vae"), load_autoencoder(tmp_path / "pipeline", "vae")):
        np.testing.assert_array_equal(encode(loaded, blobs()), encode(model, blobs()))
        z = torch.from_numpy(encode(model, blobs(), dtype=np.float32))
        np.testing.assert_array_equal(decode(loaded, z), decode(model, z))


def test_a_training_that_was_cut_gives_the_same_autoencoder() -> None:
    def run(keeper: BufferKeeper) -> AutoencoderKL:
        try:
            return train(keeper, num_steps=8)[0]
        except Cut:
            return run(keeper)

    whole, cut = run(BufferKeeper()), run(BufferKeeper((3, 8)))
    assert whole.config.scaling_factor == cut.config.scaling_factor
    assert all(torch.equal(value, cut.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_size_that_does_not_divide_is_refused(trained: tuple[AutoencoderKL, list[float]]) -> None:
    with pytest.raises(ValueError, match="images of 9 px do not divide by the autoencoder's factor 2"):
        latent_shape(trained[0], 9)


def test_a_folder_without_an_autoencoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        load_autoencoder(tmp_path)
