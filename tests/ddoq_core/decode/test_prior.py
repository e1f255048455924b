"""Diffusion priors: sampling equals diffusers' own pipelines, on tiny random weights saved and loaded as real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiTPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
    StableDiffusionImg2ImgPipeline,
)

from ddoq_core.decode.dit import load_dit
from ddoq_core.decode.stable_diffusion import load_stable_diffusion
from tests.pipelines import SD_SCHEDULE, save_dit, save_stable_diffusion

PROMPTS = ("cat", "dog", "cat dog")
NEGATIVE = "a dog a"
SCHEDULERS: dict[str, SchedulerMixin] = {
    "PNDM": PNDMScheduler(**SD_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False),
    "DDIM": DDIMScheduler(**SD_SCHEDULE, clip_sample=False, set_alpha_to_one=False),
    "Euler": EulerDiscreteScheduler(**SD_SCHEDULE),
    "DPM++": DPMSolverMultistepScheduler(**SD_SCHEDULE),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def dit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dit(tmp_path_factory.mktemp("dit"))


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize(("strength", "num_steps"), [(0.7, 10), (1.0, 6), (0.35, 10)])
def test_sampling_equals_diffusers_image_to_image(sd_folder: Path, name: str, strength: float, num_steps: int) -> None:
    z = torch.randn(3, 4, 8, 8, generator=seeded(1))
    theirs = StableDiffusionImg2ImgPipeline.from_pretrained(
        sd_folder, safety_checker=None, requires_safety_checker=False, low_cpu_mem_usage=False
    )
    theirs.scheduler = type(SCHEDULERS[name]).from_config(SCHEDULERS[name].config)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        prompt=list(PROMPTS),
        negative_prompt=[NEGATIVE] * 3,
        image=z,
        strength=strength,
        num_inference_steps=num_steps,
        guidance_scale=8.0,
        generator=seeded(2),
        output_type="latent",
    ).images
    loaded = load_stable_diffusion(str(sd_folder), PROMPTS, NEGATIVE)
    assert isinstance(loaded.scheduler, PNDMScheduler)
    prior = replace(loaded, scheduler=type(SCHEDULERS[name]).from_config(SCHEDULERS[name].config))
    noise = torch.randn(z.shape, generator=seeded(2))
    settings: dict[str, Any] = {"strength": strength, "guidance_scale": 8.0, "num_steps": num_steps}
    found = prior.sample(z, torch.arange(3), noise, **settings)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - z).abs().max() > 0.1
    again = prior.sample(z, torch.arange(3), noise, **settings)
    assert torch.equal(again, found)  # a schedule that was used carries nothing over


def test_the_prompt_and_the_negative_prompt_matter(sd_folder: Path) -> None:
    z, noise = (torch.randn(2, 4, 8, 8, generator=seeded(k)) for k in (1, 2))
    settings: dict[str, Any] = {"strength": 0.7, "guidance_scale": 8.0, "num_steps": 4}
    prior = load_stable_diffusion(str(sd_folder), PROMPTS, NEGATIVE)
    other = load_stable_diffusion(str(sd_folder), PROMPTS, "cat")
    cats = prior.sample(z, torch.zeros(2, dtype=torch.long), noise, **settings)
    assert not torch.allclose(cats, prior.sample(z, torch.ones(2, dtype=torch.long), noise, **settings), atol=1e-4)
    assert not torch.allclose(cats, other.sample(z, torch.zeros(2, dtype=torch.long), noise, **settings), atol=1e-4)


def test_sampling_equals_the_dit_pipeline(dit_folder: Path) -> None:
    num_steps, names = 8, ("goldfish", "cock")
    theirs = DiTPipeline.from_pretrained(dit_folder, low_cpu_mem_usage=False)
    theirs.set_progress_bar_config(disable=True)
    ids = theirs.get_label_ids(list(names))
    assert ids == [1, 7]
    expected = theirs(ids, 4.0, generator=seeded(3), num_inference_steps=num_steps, output_type="pt").images
    prior = load_dit(str(dit_folder), names)
    start = torch.randn(2, 4, 8, 8, generator=seeded(3))
    prior.scheduler.set_timesteps(num_steps)
    kept = (1 - prior.scheduler.alphas_cumprod[prior.scheduler.timesteps[0]]).sqrt()
    z = prior.sample(
        torch.zeros_like(start), torch.arange(2), start / kept, strength=1.0, guidance_scale=4.0, num_steps=num_steps
    )
    with torch.inference_mode():
        pictures = theirs.vae.decode(z / theirs.vae.config.scaling_factor).sample / 2 + 0.5
    torch.testing.assert_close(pictures.clamp(0, 1), expected, rtol=0, atol=1e-4)
    assert expected.std() > 1e-2
    swapped = prior.sample(
        torch.zeros_like(start),
        torch.tensor([1, 0]),
        start / kept,
        strength=1.0,
        guidance_scale=4.0,
        num_steps=num_steps,
    )
    assert (swapped - z).abs().max() > 1e-2


def test_a_picture_does_not_depend_on_its_batch(dit_folder: Path) -> None:
    prior = load_dit(str(dit_folder), ("cock", "goldfish", "shark"))
    z, noise = (torch.randn(3, 4, 8, 8, generator=seeded(k)) for k in (1, 2))
    settings: dict[str, Any] = {"strength": 0.5, "guidance_scale": 2.0, "num_steps": 6}
    together = prior.sample(z, torch.arange(3), noise, **settings)
    for k in range(3):
        alone = prior.sample(z[k : k + 1], torch.tensor([k]), noise[k : k + 1], **settings)
        torch.testing.assert_close(alone[0], together[k], rtol=1e-4, atol=1e-4)


def test_no_strength_gives_the_centroid_back_and_no_guidance_the_class_alone(dit_folder: Path) -> None:
    prior = load_dit(str(dit_folder), ("cock", "goldfish"))
    z, noise = (torch.randn(2, 4, 8, 8, generator=seeded(k)) for k in (1, 2))
    labels = torch.arange(2)
    assert torch.equal(prior.sample(z, labels, noise, strength=0.05, guidance_scale=4.0, num_steps=10), z)
    alone = replace(prior, unconditional=torch.tensor(3))  # at scale 1 it does not count
    found = [p.sample(z, labels, noise, strength=0.5, guidance_scale=1.0, num_steps=4) for p in (prior, alone)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_classes_the_prior_does_not_know_are_refused(dit_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"does not know 2 of the classes, the first is 'n99999999'"):
        load_dit(str(dit_folder), ("cock", "n01440764", "n99999999", "our own"))


def test_imagenet_folders_go_by_wordnet_id(dit_folder: Path) -> None:
    assert load_dit(str(dit_folder), ("n01440764", "n01443537", "cock")).conditions.tolist() == [0, 1, 7]


def test_a_folder_that_holds_no_pipeline_is_refused(tmp_path: Path) -> None:
    for load in (lambda: load_dit(str(tmp_path), ("a",)), lambda: load_stable_diffusion(str(tmp_path), ("a",), "")):
        with pytest.raises(OSError):
            load()
