"""The autoencoder: trained small, its latents standardised, saved and loaded as diffusers does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from safetensors.torch import save_file

from ddoq_core.encode.autoencoder import (
    Autoencoder,
    Flux2TinyAutoencoder,
    TinyAutoencoder,
    encode,
    encode_batches,
    load_autoencoder,
    pictures_of,
    reconstruction_psnr,
)
from ddoq_core.encode.components import ComponentsAutoencoder
from ddoq_core.encode.taef2 import TAEF2
from ddoq_core.encode.training import train_autoencoder
from ddoq_core.fitting import Checkpoint
from ddoq_core.images import to_unit
from tests.ddoq_core.test_fitting import BufferCheckpoint, Cut
from tests.pipelines import tiny_dc_autoencoder

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


def train(checkpoint: Checkpoint, **changes: Any) -> tuple[Autoencoder, list[float]]:
    return train_autoencoder(blobs(), **{**SETTINGS, **changes}, checkpoint=checkpoint)


@pytest.fixture(scope="module")
def trained() -> tuple[Autoencoder, list[float]]:
    return train(BufferCheckpoint())


def test_training_lowers_the_loss_and_restores_pictures(trained: tuple[Autoencoder, list[float]]) -> None:
    model, losses = trained
    assert losses[-1] < 0.7 * losses[0]
    flat = np.broadcast_to(blobs().mean((0, 1, 2)).round().astype(np.uint8), blobs().shape)
    mse = np.square(blobs().astype(float) - flat).mean()
    assert reconstruction_psnr(model, blobs()) > 10 * np.log10(255**2 / mse) + 1  # better than one colour for all
    assert not model.network.training and not any(p.requires_grad for p in model.network.parameters())


def test_latents_are_standardised_and_come_back_as_pictures(trained: tuple[Autoencoder, list[float]]) -> None:
    model, _ = trained
    z = encode(model, blobs(), dtype=np.float32)
    assert z.shape == (40, *model.latent_shape(8)) == (40, 2, 4, 4)
    assert z.mean() == pytest.approx(0, abs=1e-4) and z.std() == pytest.approx(1, abs=1e-3)
    with torch.inference_mode():
        x = torch.from_numpy(blobs()).permute(0, 3, 1, 2) / 127.5 - 1
        direct = model.network.decode(model.network.encode(x).latent_dist.mean).sample
    expected = ((direct + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(pictures_of(model, torch.from_numpy(z)) - expected).max() <= 0.6  # rounding to uint8


def test_latents_do_not_depend_on_the_batch_and_are_stored_in_half(trained: tuple[Autoencoder, list[float]]) -> None:
    whole, parts = (encode(trained[0], blobs(), batch_size=size) for size in (64, 7))
    assert whole.dtype == np.float16
    np.testing.assert_allclose(whole, parts, atol=4e-3)


def test_a_saved_autoencoder_comes_back_equal(trained: tuple[Autoencoder, list[float]], tmp_path: Path) -> None:
    model, _ = trained
    model.network.save_pretrained(tmp_path / "pipeline" / "vae")
    for loaded in (load_autoencoder(tmp_path / "pipeline" / "vae"), load_autoencoder(tmp_path / "pipeline", "vae")):
        np.testing.assert_array_equal(encode(loaded, blobs()), encode(model, blobs()))
        z = torch.from_numpy(encode(model, blobs(), dtype=np.float32))
        np.testing.assert_array_equal(pictures_of(loaded, z), pictures_of(model, z))


def photographs(n: int = 64) -> NDArray[np.uint8]:
    """Smooth pictures of 16 px whose patches are all alike in the mean, with some noise."""
    rng = np.random.default_rng(1)
    waves = np.sin(np.arange(16) * rng.uniform(0.1, 0.8, (n, 3, 1)) + rng.uniform(0, 6.3, (n, 3, 1)))  # (n, 3, 16)
    x = waves[:, :, None] * waves[:, [1, 2, 0], :, None] * 90 + 128 + rng.normal(0, 4, (n, 3, 16, 16))
    return x.transpose(0, 2, 3, 1).clip(0, 255).astype(np.uint8)


def test_components_start_as_the_best_linear_autoencoder_of_patches() -> None:
    x, shape = photographs(), {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
    for channels in (6, 48):
        network = ComponentsAutoencoder(
            **shape, num_encoder_blocks=(0, 1, 1), num_decoder_blocks=(1, 1, 0), latent_channels=channels
        )
        network.start(to_unit(x) * 2 - 1)
        model = TinyAutoencoder(network)
        patches = x.reshape(64, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(-1, 48) / 255
        variances = np.linalg.eigvalsh(np.cov(patches.T))[::-1]
        left_out = variances[channels:].sum() / 48  # of a number of a picture, by Eckart and Young
        psnr = reconstruction_psnr(model, x)
        assert psnr == pytest.approx(-10 * np.log10(left_out), abs=0.1) if channels == 6 else psnr > 60
        z = encode(model, x, dtype=np.float32)
        assert z.mean() == pytest.approx(0, abs=1e-3) and z.std() == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="patches of 4 px have 48 components, not 49"):
        ComponentsAutoencoder(
            **shape, num_encoder_blocks=(0, 1, 1), num_decoder_blocks=(1, 1, 0), latent_channels=49
        ).start(to_unit(x) * 2 - 1)


def test_components_learn_what_is_not_linear(tmp_path: Path) -> None:
    def psnr(num_steps: int, learning_rate: float) -> tuple[float, Autoencoder]:
        changes = {"channels": (16, 16, 16), "latent_channels": 6, "num_steps": num_steps}
        settings = {**SETTINGS, **changes, "kind": "components", "learning_rate": learning_rate}
        model, _ = train_autoencoder(photographs(), **settings, checkpoint=BufferCheckpoint())
        return reconstruction_psnr(model, photographs()), model

    start, _ = psnr(1, 0.0)
    end, model = psnr(200, 3e-3)
    assert end > start + 1
    z = encode(model, photographs(), dtype=np.float32)
    assert z.mean() == pytest.approx(0, abs=1e-4) and z.std() == pytest.approx(1, abs=1e-3)
    model.network.save_pretrained(tmp_path)
    np.testing.assert_array_equal(encode(load_autoencoder(tmp_path), photographs(), dtype=np.float32), z)


@pytest.mark.parametrize("kind", ["kl", "components"])
def test_a_training_that_was_cut_gives_the_same_autoencoder_also_on_more_cores(kind: str) -> None:
    def run(checkpoint: BufferCheckpoint, num_threads: int) -> Autoencoder:
        try:
            return train(checkpoint, kind=kind, num_steps=8, batch_size=20, num_threads=num_threads)[0]
        except Cut:
            return run(checkpoint, num_threads + 1)

    whole, cut = run(BufferCheckpoint(), 1), run(BufferCheckpoint((3, 8)), 1)
    assert (whole.shift, whole.scale) == (cut.shift, cut.scale)
    assert all(torch.equal(value, cut.network.state_dict()[name]) for name, value in whole.network.state_dict().items())


def test_a_size_that_does_not_divide_is_refused(trained: tuple[Autoencoder, list[float]]) -> None:
    with pytest.raises(ValueError, match="images of 9 px do not divide by the autoencoder's factor 2"):
        trained[0].latent_shape(9)


def test_a_folder_without_an_autoencoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        load_autoencoder(tmp_path)


def test_an_autoencoder_tiny_is_used_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    channels = (8, 8, 8)
    network = AutoencoderTiny(
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        scaling_factor=0.5,
        shift_factor=0.25,
    )
    network.save_pretrained(tmp_path)
    model = load_autoencoder(tmp_path)
    z = encode(model, blobs(), dtype=np.float32)
    assert z.shape == (40, *model.latent_shape(8)) == (40, 4, 2, 2)
    with torch.inference_mode():
        x = torch.from_numpy(blobs()).permute(0, 3, 1, 2) / 127.5 - 1
        direct = network.encode(x).latents
        pictures = (network.decode(direct).sample + 1) * 127.5
    np.testing.assert_allclose(z, (direct - 0.25) * 0.5, atol=1e-5)
    expected = pictures.clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(pictures_of(model, torch.from_numpy(z)) - expected).max() <= 0.6


def test_an_autoencoder_dc_is_used_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = tiny_dc_autoencoder()
    network.save_pretrained(tmp_path)
    model = load_autoencoder(tmp_path)
    z = encode(model, blobs(4, 64), dtype=np.float32)
    assert z.shape == (4, *model.latent_shape(64)) == (4, 4, 2, 2)
    with torch.inference_mode():
        x = torch.from_numpy(blobs(4, 64)).permute(0, 3, 1, 2) / 127.5 - 1
        direct = network.encode(x).latent
        pictures = (network.decode(direct).sample + 1) * 127.5
    np.testing.assert_allclose(z, direct * 0.41407, atol=1e-5)
    expected = pictures.clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert expected.std() > 1 and np.abs(pictures_of(model, torch.from_numpy(z)) - expected).max() <= 0.6


def test_taef2s_two_files_are_an_autoencoder(tmp_path: Path) -> None:
    network = TAEF2().eval()
    for name, half in (("encoder", network.encoder), ("decoder", network.decoder)):
        save_file(half.state_dict(), tmp_path / f"{name}.safetensors")
    model = load_autoencoder(tmp_path)
    assert isinstance(model, Flux2TinyAutoencoder)
    z = encode(model, blobs(4, 16), dtype=np.float32)
    assert z.shape == (4, *model.latent_shape(16)) == (4, 32, 2, 2)
    with torch.inference_mode():
        x = torch.from_numpy(blobs(4, 16)).permute(0, 3, 1, 2) / 255
        np.testing.assert_allclose(z, network.encode(x), atol=1e-5)
        expected = network.decode(torch.from_numpy(z)).permute(0, 2, 3, 1).numpy() * 255
    assert np.abs(pictures_of(model, torch.from_numpy(z)) - expected).max() <= 0.6


@pytest.mark.parametrize(("kind", "size", "last"), [("kl", 16, False), ("kl", 64, True), ("taef2", 16, True)])
def test_small_pictures_take_the_layout_that_is_faster_for_the_network(
    kind: str, size: int, last: bool, trained: tuple[Autoencoder, list[float]]
) -> None:
    model = trained[0] if kind == "kl" else Flux2TinyAutoencoder(TAEF2())
    seen: list[torch.Tensor] = []
    hook = model.network.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    encode(model, blobs(2, size))
    hook.remove()
    assert seen[0].is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def test_another_class_of_autoencoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "VQModel"}')
    with pytest.raises(ValueError, match="it is a VQModel; there are AutoencoderKL, AutoencoderTiny, AutoencoderDC, "):
        load_autoencoder(tmp_path)


def test_a_sample_is_seeded_and_spread_like_the_posterior(trained: tuple[Autoencoder, list[float]]) -> None:
    model, _ = trained
    pictures = np.repeat(blobs(1), 400, axis=0)

    def draw(*seed: Any) -> NDArray[np.float32]:
        return np.concatenate(list(encode_batches(model, np.split(pictures, 4), sample=seed)))

    z = draw(0, "cat/0")
    np.testing.assert_array_equal(z, draw(0, "cat/0"))
    assert not np.array_equal(z, draw(1, "cat/0")) and not np.array_equal(z, draw(0, "cat/1"))
    with torch.inference_mode():
        x = torch.from_numpy(pictures[:1]).permute(0, 3, 1, 2) / 255
        mean, std = model.posterior(x)
    assert std is not None
    centred = (z / model.scale + model.shift - mean.numpy()) / std.numpy()
    assert abs(centred.mean()) < 0.02 and centred.std() == pytest.approx(1, abs=0.02)
