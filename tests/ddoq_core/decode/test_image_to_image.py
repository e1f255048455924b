"""Stable Diffusion XL and 3 as priors: what diffusers' own pipelines make of the same prompts, latents and seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoPipelineForImage2Image

from ddoq_core.decode.image_to_image import PipelinePrior, load_image_to_image
from ddoq_core.decode.noise import noise_of, unit_seeds
from ddoq_core.errors import InvalidInput
from tests.pipelines import save_stable_diffusion, save_stable_diffusion_3, save_stable_diffusion_xl

SAVED: dict[str, tuple[Callable[[Path], Path], int]] = {
    "xl": (save_stable_diffusion_xl, 4),
    "3": (save_stable_diffusion_3, 16),
}
PROMPTS, NEGATIVE = ["a cat", "a dog"], "a toad"
LABELS = torch.tensor([1, 0, 1])
SEEDS = unit_seeds(3, 0, "n01")
SETTINGS: dict[str, Any] = {"strength": 0.5, "guidance_scale": 4.0, "num_steps": 6}


@pytest.fixture(scope="module", params=SAVED)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    save, channels = SAVED[request.param]
    return save(tmp_path_factory.mktemp(request.param)), channels


@pytest.fixture(scope="module")
def prior(saved: tuple[Path, int]) -> PipelinePrior:
    return load_image_to_image(str(saved[0]), PROMPTS, NEGATIVE)


def latents(channels: int) -> torch.Tensor:
    return torch.randn(3, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def drawn(prior: PipelinePrior, z: torch.Tensor, **changes: Any) -> torch.Tensor:
    settings = {**SETTINGS, "seeds": SEEDS, **changes}
    return prior.sample(z, LABELS, noise_of(settings["seeds"], tuple(z.shape[1:])), **settings)


def test_it_draws_what_the_pipeline_draws_of_the_prompts(prior: PipelinePrior, saved: tuple[Path, int]) -> None:
    folder, channels = saved
    without_t5 = {"text_encoder_3": None, "tokenizer_3": None} if channels == 16 else {}
    pipeline = AutoPipelineForImage2Image.from_pretrained(folder, **without_t5)
    theirs = pipeline(
        prompt=[PROMPTS[label] for label in LABELS],
        negative_prompt=[NEGATIVE] * 3,
        image=latents(channels),
        strength=0.5,
        guidance_scale=4.0,
        num_inference_steps=6,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="latent",
    ).images
    found = drawn(prior, latents(channels))
    assert found.shape == (3, channels, 8, 8) and found.dtype == torch.float32
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-4)


def test_settings_reach_it(prior: PipelinePrior, saved: tuple[Path, int]) -> None:
    z = latents(saved[1])
    base = drawn(prior, z)
    changed: list[dict[str, Any]] = [
        {"strength": 0.9}, {"guidance_scale": 1.0}, {"num_steps": 8}, {"seeds": SEEDS[::-1]}
    ]  # fmt: skip
    for changes in changed:
        assert not torch.allclose(drawn(prior, z, **changes), base), changes
    assert torch.equal(drawn(prior, z, strength=0.01), z), "less than a step"
    assert torch.equal(drawn(prior, z), base)


def test_text_encoders_are_not_kept(prior: PipelinePrior) -> None:
    assert all(getattr(prior.pipeline, name, None) is None for name in ("text_encoder", "text_encoder_2"))
    assert prior.embedded["prompt_embeds"].shape[0] == 2 and prior.embedded["negative_prompt_embeds"].shape[0] == 1


def test_another_pipeline_and_weights_that_lack_something_are_refused(tmp_path: Path) -> None:
    families = "Stable Diffusion XL, 3 or 3.5, PixArt-α or -Σ, or Sana"
    with pytest.raises(InvalidInput, match=f"holds a 'StableDiffusionPipeline': give a pipeline of {families}"):
        load_image_to_image(str(save_stable_diffusion(tmp_path / "sd")), PROMPTS, NEGATIVE)
    folder = save_stable_diffusion_xl(tmp_path / "xl")
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps({**config, "block_out_channels": [8, 32]}))
    with pytest.raises(InvalidInput, match="does not fit its network"):
        load_image_to_image(str(folder), PROMPTS, NEGATIVE)
