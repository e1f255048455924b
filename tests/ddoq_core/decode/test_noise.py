"""The noise of a picture: from its own seed, and as much as D4M's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from ddoq_core.decode.noise import matched_timestep, noise_of, unit_seeds


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
