"""The noise of a picture: from its own seed, and as much as D4M's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from scipy.spatial.distance import cdist

from ddoq_core.decode.noise import matched_timestep, noise_of, residual_variance, residuals_of, unit_seeds


@pytest.mark.parametrize(
    ("schedule", "start"),
    [
        ({"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}, 495),  # of a DiT
        ({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}, 701),  # of Stable Diffusion
    ],
)
def test_the_start_matched_to_d4m(schedule: dict[str, Any], start: int) -> None:
    scheduler = DDIMScheduler(**schedule)
    assert matched_timestep(scheduler) == start
    assert scheduler.alphas_cumprod[start].item() == pytest.approx(0.082, abs=5e-4)


def test_noise_rows_depend_on_their_names_alone() -> None:
    def rows(num: int, seed: int, unit: str) -> torch.Tensor:
        return noise_of(unit_seeds(num, seed, unit), (2, 3, 3))

    five = rows(5, 0, "n01")
    assert torch.equal(rows(2, 0, "n01"), five[:2])
    rows(7, 0, "n02")
    torch.manual_seed(9)
    assert torch.equal(rows(5, 0, "n01"), five)
    together = torch.cat([five, rows(5, 1, "n01"), rows(5, 0, "n02")]).flatten(1)
    assert len({tuple(row.tolist()) for row in together}) == 15
    many = rows(500, 0, "n01")
    assert abs(many.mean().item()) < 0.05 and abs(many.std().item() - 1) < 0.05


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents (n, C, H, W) of eight cells that differ in their spread, as their channels do, their centroids and
    cells."""
    rng = np.random.default_rng(0)
    assignment = rng.integers(0, 8, 1600)
    centres, spread = rng.normal(size=(8, 2, 4, 4)), rng.uniform(0.3, 2, (8, 2, 1, 1))
    z = centres[assignment] + spread[assignment] * rng.normal(size=(1600, 2, 4, 4))
    centroids = np.stack([z[assignment == k].mean(0) for k in range(8)])
    return z.astype(np.float16), centroids.astype(np.float32), assignment


def test_what_quantisation_left_out_in_blocks(cells: tuple[np.ndarray, ...]) -> None:
    z, centroids, assignment = cells
    found = residual_variance([z[:700], z[700:]], centroids, assignment)
    for k in range(8):
        own = z[assignment == k].astype(np.float64) - centroids[k]
        np.testing.assert_allclose(found[k], (own**2).mean((0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("signal", [0.95, 0.6, 0.3, 0.05])  # ᾱ
def test_matched_noise_makes_noised_centroids_like_noised_latents(signal: float, cells: tuple[np.ndarray, ...]) -> None:
    """Of energy and of distance to the nearest noised latent, at every step."""
    z, centroids, assignment = cells
    sigma = np.sqrt(residual_variance([z], centroids, assignment))[:, :, None, None]
    seeds = unit_seeds(len(z), 0, "test")
    lacking = sigma[assignment] * residuals_of(seeds, z.shape[1:])
    noise = noise_of(seeds, z.shape[1:]).numpy()
    again = noise_of(unit_seeds(len(z), 1, "test"), z.shape[1:]).numpy()

    def noised(clean: np.ndarray, with_noise: np.ndarray) -> np.ndarray:
        return (signal**0.5 * clean + (1 - signal) ** 0.5 * with_noise).reshape(len(clean), -1)

    real = noised(z.astype(np.float32), again)
    apart = cdist(real, real)
    np.fill_diagonal(apart, np.inf)
    matched, plain = noised(centroids[assignment] + lacking, noise), noised(centroids[assignment], noise)
    energy = np.square(real).mean()
    nearest = apart.min(1).mean()
    assert np.square(matched).mean() == pytest.approx(energy, rel=0.02)
    assert cdist(matched, real).min(1).mean() == pytest.approx(nearest, rel=0.02)
    assert np.square(plain).mean() < energy - 0.9 * signal * np.square(sigma[assignment]).mean()
    assert cdist(plain, real).min(1).mean() < nearest
