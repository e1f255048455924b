"""Where sampling starts and what steers it, on a prior that is known exactly: each class a Gaussian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import ot
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler

from ddoq_core.decode.flow import FlowPrior
from ddoq_core.decode.noise import noise_of, unit_seeds
from ddoq_core.decode.prior import Prior, targets
from tests.pipelines import SD_SCHEDULE

MEANS = torch.tensor([-1.0, 1.0, 0.0])  # of two classes, and of no class
STD = 0.5
SHAPE = (2, 4, 4)
SEEDS = unit_seeds(6, 0, "n01")
LABELS = torch.tensor([0, 1] * 3)
SETTINGS: dict[str, Any] = {"strength": 0.7, "guidance_scale": 1.0, "num_steps": 50, "seeds": SEEDS}


def gaussian_prior(scheduler: Any = None) -> Prior:
    """The best possible denoiser of latents N(mean of the class, STD²), conditioned on that mean."""
    scheduler = scheduler or DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, clip_sample=False)

    def denoise(z: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        kept = scheduler.alphas_cumprod[t.long()].view(-1, 1, 1, 1)
        mean = kept.sqrt() * condition.view(-1, 1, 1, 1)
        return (1 - kept).sqrt() * (z - mean) / (kept * STD**2 + 1 - kept)

    return Prior(denoise, scheduler, MEANS[:2], MEANS[2])


def gaussian_flow() -> FlowPrior:
    """The best possible velocity of the same latents, E[ε − z | z_t]."""

    def denoise(z: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        t, mean = (part.view(-1, 1, 1, 1) for part in (t, condition))
        variance = (1 - t) ** 2 * STD**2 + t**2
        return (t - (1 - t) * STD**2) / variance * (z - (1 - t) * mean) - mean

    return FlowPrior(denoise, MEANS[:2], MEANS[2], torch.zeros(SHAPE[0], 1, 1), torch.ones(SHAPE[0], 1, 1))


PRIORS: dict[str, Callable[[], Any]] = {"diffusion": gaussian_prior, "flow": gaussian_flow}
of_both = pytest.mark.parametrize("kind", PRIORS)


def centroids() -> torch.Tensor:
    return MEANS[LABELS].view(-1, 1, 1, 1) + STD * noise_of(unit_seeds(6, 1, "centroids"), SHAPE)


def distances(found: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return (found - z).flatten(1).norm(dim=1)


def test_without_a_strength_stable_diffusion_starts_as_at_seven_tenths() -> None:
    prior = gaussian_prior(PNDMScheduler(**SD_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False))
    noise = noise_of(SEEDS, SHAPE)
    found = [prior.sample(centroids(), LABELS, noise, **{**SETTINGS, "strength": s}) for s in (None, 0.7, 0.66)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_of_some_channels_alone_the_others_follow_the_class() -> None:
    """As in forward_with_cfg of DiT's models.py: out[:3] = u + s·(c − u), out[3:] = c."""
    prior, t = gaussian_prior(), torch.tensor(500)
    z = noise_of(SEEDS, SHAPE)
    alone, both = (prior._guided(z, t, LABELS, scale) for scale in (1.0, 4.0))
    some = prior._guided(z, t, LABELS, 4.0, channels=1)
    assert torch.equal(some[:, :1], both[:, :1]) and torch.equal(some[:, 1:], alone[:, 1:])
    assert not torch.equal(both[:, 1:], alone[:, 1:])
    found = [prior.sample(z, LABELS, z, **{**SETTINGS, "guidance_scale": 4.0}, guided_channels=c) for c in (None, 1, 2)]
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


@of_both
@pytest.mark.parametrize("sampler", ["given", "ddim", "ddpm"])
def test_every_sampler_draws_the_class(sampler: Any, kind: str) -> None:
    prior, seeds = PRIORS[kind]().with_sampler(sampler), unit_seeds(200, 0, "n01")
    labels = torch.arange(200) % 2
    settings = {**SETTINGS, "strength": 1.0, "num_steps": 250, "seeds": seeds}
    found = prior.sample(torch.zeros(200, *SHAPE), labels, noise_of(seeds, SHAPE), **settings)
    for label in (0, 1):
        of_class = found[labels == label]
        assert of_class.mean().item() == pytest.approx(MEANS[label].item(), abs=0.1)
        assert of_class.std().item() == pytest.approx(STD, rel=0.1)


@of_both
def test_noise_of_the_steps_depends_on_a_pictures_seed_alone(kind: str) -> None:
    prior, z, noise = PRIORS[kind]().with_sampler("ddpm"), centroids(), noise_of(SEEDS, SHAPE)
    together = prior.sample(z, LABELS, noise, **SETTINGS)
    torch.manual_seed(9)
    assert torch.equal(prior.sample(z, LABELS, noise, **SETTINGS), together)
    alone = prior.sample(z[4:], LABELS[4:], noise[4:], **{**SETTINGS, "seeds": SEEDS[4:]})
    torch.testing.assert_close(alone, together[4:])
    others = prior.sample(z, LABELS, noise, **{**SETTINGS, "seeds": SEEDS[::-1]})
    assert (distances(others, together) > 0.1).all()


@of_both
def test_the_centroid_comes_back_from_its_own_noise(kind: str) -> None:
    prior, z = PRIORS[kind](), centroids()
    settings = {**SETTINGS, "strength": 1.0}
    inverted = prior.sample(z, LABELS, noise_of(SEEDS, SHAPE), **settings, inversion=True)
    random = prior.sample(z, LABELS, noise_of(SEEDS, SHAPE), **settings)
    assert (distances(inverted, z) < 0.15 * distances(random, z)).all()
    assert torch.equal(inverted, prior.sample(z, LABELS, torch.zeros_like(z), **settings, inversion=True))


@of_both
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_guidance_towards_the_centroid_brings_samples_nearer(sampler: Any, kind: str) -> None:
    prior, z, noise = PRIORS[kind]().with_sampler(sampler), centroids(), noise_of(SEEDS, SHAPE)
    free, pulled, hard = (
        distances(prior.sample(z, LABELS, noise, **SETTINGS, centroid_guidance=scale), z).mean()
        for scale in (0, 0.05, 0.1)
    )
    assert hard < pulled < free


@of_both
def test_guidance_stops_after_its_share_of_the_steps(kind: str) -> None:
    """MGD3's --stop_t: the denoiser is asked with guided latents no longer; without it nothing is pulled."""
    prior, z, noise = PRIORS[kind]().with_sampler("ddim"), centroids(), noise_of(SEEDS, SHAPE)

    def drawn(until: float) -> torch.Tensor:
        return prior.sample(z, LABELS, noise, **SETTINGS, centroid_guidance=0.1, centroid_guidance_steps=(0.0, until))

    free = prior.sample(z, LABELS, noise, **SETTINGS)
    assert torch.equal(drawn(1e-9), free)
    default = prior.sample(z, LABELS, noise, **SETTINGS, centroid_guidance=0.1)
    assert torch.equal(drawn(0.5), default)
    short, half, whole = (distances(drawn(share), z).mean() for share in (0.25, 0.5, 1.0))
    assert whole < half < short < distances(free, z).mean()


def test_transport_pulls_where_the_masses_say() -> None:
    """Two classes on a line; the plan worked out by hand: sorted mass to sorted mass."""
    clean = torch.tensor([0.0, 10.0, 1.0, 5.0, 7.0]).view(-1, 1, 1, 1)
    centroids = torch.tensor([0.0, 8.0, 20.0, 5.0, 6.0]).view(-1, 1, 1, 1)
    labels, masses = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0.5, 0.3, 0.2, 9.0, 1.0])
    first = 0.0  # a third of the mass is at 0, of which the centroid takes all
    second = (2 / 3 - 0.5) * 3 * 8  # the latent at 1: what is left of 0, then 8
    third = (0.8 - 2 / 3) * 3 * 8 + 0.2 * 3 * 20  # the latent at 10
    one, two = 5.0, (0.9 - 0.5) * 2 * 5 + 0.1 * 2 * 6
    found = targets(clean, centroids, labels, masses).ravel()
    torch.testing.assert_close(found, torch.tensor([first, third, second, one, two]))
    assert torch.equal(targets(clean, centroids, labels, None), centroids)


def test_transports_pull_is_the_gradient_of_w2() -> None:
    z = torch.randn(6, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    m = torch.randn(6, 2, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b = torch.tensor([0.3, 0.1, 0.1, 0.2, 0.2, 0.1], dtype=torch.float64)
    labels, h = torch.zeros(6, dtype=torch.long), 1e-5

    def w2_squared(x: torch.Tensor) -> float:
        return float(ot.emd2(np.full(6, 1 / 6), b.numpy(), torch.cdist(x.flatten(1), m.flatten(1)).square().numpy()))

    pull = targets(z, m, labels, b) - z
    for at in ((0, 0, 0, 0), (3, 1, 0, 1), (5, 0, 1, 1)):
        step = torch.zeros_like(z)
        step[at] = h
        slope = (w2_squared(z + step) - w2_squared(z - step)) / (2 * h)
        assert slope == pytest.approx(-2 / 6 * float(pull[at]), rel=1e-4)


@of_both
def test_guidance_by_transport_brings_a_class_nearer_in_w2(kind: str) -> None:
    prior, z, noise = PRIORS[kind]().with_sampler("ddim"), centroids(), noise_of(SEEDS, SHAPE)
    masses, one = torch.tensor([5.0, 1.0, 1.0, 1.0, 1.0, 1.0]), torch.zeros_like(LABELS)

    def w2_squared(x: torch.Tensor) -> float:
        b = (masses / masses.sum()).double().numpy()
        cost = torch.cdist(x.flatten(1).double(), z.flatten(1).double()).square()
        return float(ot.emd2(np.full(len(x), 1 / len(x)), b / b.sum(), cost.numpy()))

    free, pulled = (
        prior.sample(
            z, one, noise, **SETTINGS, centroid_guidance=scale, centroid_guidance_steps=(0.0, 1.0), masses=masses
        )
        for scale in (0.0, 0.1)
    )
    assert w2_squared(pulled) < w2_squared(free)
