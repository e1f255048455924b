"""PixArt and Sana as priors: what diffusers' text-to-image pipelines make of the same prompts and noised latents."""

from __future__ import annotations

import gc
import inspect
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, PixArtAlphaPipeline

from ddoq_core.decode.image_to_image import load_image_to_image
from ddoq_core.decode.noise import noise_of, unit_seeds
from ddoq_core.decode.prior import Prior
from ddoq_core.decode.text_to_image import text_to_image_prior
from ddoq_core.encode.autoencoder import load_autoencoder, pictures_of
from ddoq_core.errors import InvalidInput
from tests.pipelines import save_pixart, save_sana

SAVED: dict[str, Callable[[Path], Path]] = {
    "pixart-sigma": save_pixart,
    "pixart-alpha": lambda folder: save_pixart(folder, PixArtAlphaPipeline, 128),  # the one that is told the size
    "sana": save_sana,
    "sana by Euler": lambda folder: save_sana(folder, FlowMatchEulerDiscreteScheduler(shift=3.0)),
}
PROMPTS, NEGATIVE = ["a cat", "a good old dog"], "a toad"
LABELS = torch.tensor([1, 0, 1])
SEEDS = unit_seeds(3, 0, "n01")
SETTINGS: dict[str, Any] = {"strength": 0.5, "guidance_scale": 4.0, "num_steps": 6}
Z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
NOISE = noise_of(SEEDS, (4, 8, 8))


@pytest.fixture(scope="module", params=SAVED)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SAVED[request.param](tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def prior(folder: Path) -> Prior:
    return loaded(folder)


def loaded(folder: Path, prompts: list[str] = PROMPTS, negative_prompt: str = NEGATIVE) -> Prior:
    found = load_image_to_image(str(folder), prompts, negative_prompt)
    assert isinstance(found, Prior)
    return found


def drawn(prior: Prior, rows: slice = slice(None), **changes: Any) -> torch.Tensor:
    settings = {**SETTINGS, "seeds": SEEDS[rows], **changes}
    return prior.sample(Z[rows], LABELS[rows], NOISE[rows], **settings)


def noised(scheduler: Any, t: torch.Tensor) -> torch.Tensor:
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return scheduler.scale_noise(Z, t[None], NOISE)
    return scheduler.add_noise(Z, NOISE, t.expand(len(Z)))


def test_from_the_first_step_it_draws_what_the_pipeline_draws(prior: Prior, folder: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.scheduler.set_timesteps(6)
    start = noised(pipeline.scheduler, pipeline.scheduler.timesteps[0])
    theirs, pictures = (
        pipeline(
            prompt=[PROMPTS[label] for label in LABELS],
            negative_prompt=[NEGATIVE] * 3,
            latents=start,
            height=64,
            width=64,
            guidance_scale=4.0,
            num_inference_steps=6,
            use_resolution_binning=False,
            output_type=kind,
        ).images
        for kind in ("latent", "np")
    )
    found = drawn(prior, strength=1.0)
    assert found.shape == (3, 4, 8, 8) and found.dtype == torch.float32
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-4)
    decoded = pictures_of(load_autoencoder(folder, "vae"), found)
    assert decoded.std() > 1 and np.abs(decoded - 255 * pictures).max() < 1


@torch.inference_mode()
def test_from_a_later_step_it_takes_the_rest_of_the_schedule(prior: Prior, folder: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    scheduler, transformer = pipeline.scheduler, pipeline.transformer
    usual = inspect.signature(pipeline.__call__).parameters.get("complex_human_instruction")
    instruction = {"complex_human_instruction": usual.default} if usual else {}
    is_alpha = isinstance(pipeline, PixArtAlphaPipeline)
    size = {"added_cond_kwargs": {"resolution": torch.full((1, 2), 64.0), "aspect_ratio": torch.ones(1, 1)}}

    def predicted(z: torch.Tensor, t: torch.Tensor, prompt: str, **settings: Any) -> torch.Tensor:
        words, mask = pipeline.encode_prompt(prompt, False, **settings)[:2]
        at = t[None] * transformer.config.get("timestep_scale", 1)
        return transformer(z[None], words, at, encoder_attention_mask=mask, **(size if is_alpha else {})).sample[0, :4]

    scheduler.set_timesteps(6)
    rest = scheduler.timesteps[3:]
    z = noised(scheduler, rest[0])
    for t in rest:
        own = torch.stack([predicted(row, t, PROMPTS[k], **instruction) for row, k in zip(z, LABELS, strict=True)])
        none = torch.stack([predicted(row, t, NEGATIVE) for row in z])
        z = scheduler.step(none + 4.0 * (own - none), t, z).prev_sample
    torch.testing.assert_close(drawn(prior), z, rtol=1e-4, atol=1e-4)


def test_settings_and_prompts_reach_it(prior: Prior, folder: Path) -> None:
    base = drawn(prior)
    changed: list[dict[str, Any]] = [{"strength": 0.9}, {"guidance_scale": 1.0}, {"num_steps": 8}]
    for changes in changed:
        assert (drawn(prior, **changes) - base).abs().max() > 1e-2, changes
    assert torch.equal(drawn(prior, strength=0.01), Z), "less than a step"
    assert torch.equal(drawn(prior), base)
    others = drawn(loaded(folder, ["a cat", "a coat"])), drawn(loaded(folder, negative_prompt="dada"))
    assert (others[0] - base).abs().amax((1, 2, 3)).gt(1e-3).tolist() == [True, False, True]
    assert (others[1] - base).abs().amax((1, 2, 3)).gt(1e-3).all()


def test_a_picture_does_not_depend_on_its_batch(prior: Prior) -> None:
    alone = torch.cat([drawn(prior, slice(k, k + 1)) for k in range(3)])
    torch.testing.assert_close(alone, drawn(prior), rtol=1e-4, atol=1e-4)


def test_what_fills_prompts_up_is_not_kept(prior: Prior) -> None:
    masks = torch.cat([prior.conditions, prior.unconditional[None]])[..., -1]
    assert masks.shape[1] == masks.sum(1).max() < 30, "of 300, or 120"


def test_the_text_encoder_is_not_kept(folder: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    encoder = weakref.ref(pipeline.text_encoder)
    made = text_to_image_prior(pipeline, PROMPTS, NEGATIVE)
    del pipeline
    gc.collect()
    assert encoder() is None and made.conditions.isfinite().all()


def test_a_tokenizer_that_needs_another_package_is_refused_with_its_name(tmp_path: Path) -> None:
    save_pixart(tmp_path)
    (tmp_path / "tokenizer" / "tokenizer.json").rename(tmp_path / "tokenizer" / "spiece.model")
    with pytest.raises(InvalidInput, match=r"spiece\.model, pip install sentencepiece protobuf"):
        loaded(tmp_path)


def test_a_transformer_under_its_old_name_and_one_that_does_not_fit(tmp_path: Path) -> None:
    expected = drawn(loaded(save_pixart(tmp_path)))
    index, config = tmp_path / "model_index.json", tmp_path / "transformer" / "config.json"
    for path in (index, config):
        path.write_text(path.read_text().replace("PixArtTransformer2DModel", "Transformer2DModel"))
    assert torch.equal(drawn(loaded(tmp_path)), expected)
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_layers": 3}))
    with pytest.raises(InvalidInput, match="does not fit its network"):
        loaded(tmp_path)
