"""Flows as priors: sampling equals diffusers' flow matching, and keeps the scale of the latents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from ddoq_core.decode import flow
from ddoq_core.decode.flow import FlowPrior, flow_prior
from ddoq_core.decode.noise import noise_of, unit_seeds
from ddoq_core.decode.transformer import FlowTransformer

SHAPE = (2, 4, 4)
MEAN, STD = (3.0, -1.0), (2.0, 0.5)
LABELS = torch.tensor([0, 1, 2])
Z, NOISE = (noise_of(unit_seeds(3, seed, "n01"), SHAPE) for seed in (0, 1))
SETTINGS: dict[str, Any] = {"guidance_scale": 1.0, "num_steps": 10}


@pytest.fixture(scope="module")
def transformer() -> FlowTransformer:
    torch.manual_seed(0)
    model = FlowTransformer(
        2, 4, 3, num_layers=2, num_heads=2, head_dim=8, patch_size=2, latents_mean=MEAN, latents_std=STD
    )
    for parameter in model.parameters():  # what is zero at the start, too
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def prior(transformer: FlowTransformer) -> FlowPrior:
    return flow_prior(transformer)


@pytest.mark.parametrize(("strength", "num_steps"), [(1.0, 10), (0.7, 10), (0.35, 7)])
def test_sampling_equals_diffusers_flow_matching(
    transformer: FlowTransformer, prior: FlowPrior, strength: float, num_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = prior.sample(Z, LABELS, NOISE, strength=strength, guidance_scale=2.0, num_steps=num_steps)
    monkeypatch.setattr(flow, "multiplies_faster_in_bfloat16", lambda _: False)
    prior = flow_prior(transformer)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - k / num_steps for k in range(num_steps)])
    timesteps = scheduler.timesteps[num_steps - int(num_steps * strength) :]
    scheduler.set_begin_index(num_steps - len(timesteps))
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (MEAN, STD))
    expected = scheduler.scale_noise((Z - mean) / std, timesteps[:1], NOISE)
    for t in timesteps:
        times = torch.full((3,), float(t) / 1000)
        alone, without = (transformer(expected, times, labels) for labels in (LABELS, torch.full((3,), 3)))
        expected = scheduler.step(without + 2 * (alone - without), t, expected).prev_sample
    found = prior.sample(Z, LABELS, NOISE, strength=strength, guidance_scale=2.0, num_steps=num_steps)
    torch.testing.assert_close(found, mean + std * expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast, found, rtol=0.02, atol=0.05)
    assert (found - Z).abs().max() > 0.1


def test_a_picture_does_not_depend_on_its_batch(prior: FlowPrior) -> None:
    together = prior.sample(Z, LABELS, NOISE, strength=0.5, **SETTINGS)
    for k in range(3):
        alone = prior.sample(Z[k : k + 1], LABELS[k : k + 1], NOISE[k : k + 1], strength=0.5, **SETTINGS)
        torch.testing.assert_close(alone[0], together[k], rtol=1e-4, atol=1e-4)


def test_without_a_strength_the_noise_is_as_strong_as_d4m_s(prior: FlowPrior) -> None:
    """ᾱ = 0.082, so √(ᾱ/(1 − ᾱ)) = 0.299 = (1 − t)/t at t = 0.77."""
    found = [prior.sample(Z, LABELS, NOISE, strength=s, guidance_scale=1.0, num_steps=100) for s in (None, 0.77, 0.76)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_no_strength_gives_the_centroid_back(prior: FlowPrior) -> None:
    assert torch.equal(prior.sample(Z, LABELS, NOISE, strength=0.05, **SETTINGS), Z)


def test_the_steps_of_ddim_are_its_own(prior: FlowPrior) -> None:
    own, ddim, ddpm = (
        prior.with_sampler(sampler).sample(Z, LABELS, NOISE, strength=0.7, **SETTINGS, seeds=[1, 2, 3])
        for sampler in ("given", "ddim", "ddpm")
    )
    assert torch.equal(own, ddim) and not torch.equal(own, ddpm)
