"""The small pretrained autoencoder: shapes, the layout of its files, and what its weights can do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ddoq_core.encode.taef2 import TAEF2
from ddoq_core.errors import InvalidInput
from tests.places import SHARED

WEIGHTS = SHARED / "weights/taef2"


def test_images_become_latents_an_eighth_their_size_and_back() -> None:
    model = TAEF2().eval()
    with torch.inference_mode():
        latents = model.encode(torch.rand(2, 3, 32, 48))
        images = model.decode(latents)
    assert latents.shape == (2, 32, 4, 6)
    assert images.shape == (2, 3, 32, 48)
    assert 0 <= images.min() <= images.max() <= 1


def test_sides_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiples of 8 px, got \(32, 30\)"):
        TAEF2().encode(torch.zeros(1, 3, 32, 30))


def test_saved_weights_load_by_name_and_others_are_refused(tmp_path: Path) -> None:
    model = TAEF2().eval()
    save_file(model.encoder.state_dict(), tmp_path / "encoder.safetensors")
    save_file(model.decoder.state_dict(), tmp_path / "decoder.safetensors")
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(TAEF2.load(tmp_path).encode(images), model.encode(images))
    save_file(model.encoder.state_dict(), tmp_path / "decoder.safetensors")
    with pytest.raises(InvalidInput, match=r"decoder.safetensors does not fit .* 43 tensors missing \(1.bias"):
        TAEF2.load(tmp_path)


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the pretrained weights are not here")
def test_pretrained_weights_reconstruct_a_scene() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    disc = ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06).float()
    scene = torch.stack([0.2 + 0.6 * y, 0.5 - 0.3 * x + 0.4 * disc, 0.8 - 0.5 * y])[None]
    model = TAEF2.load(WEIGHTS)
    with torch.inference_mode():
        latents = model.encode(scene)
        error = (model.decode(latents) - scene).square().mean()
    assert -10 * torch.log10(error) > 25
    assert 0.4 < latents.std() < 1.6
