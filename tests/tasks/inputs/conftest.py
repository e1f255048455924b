"""Pipelines of which there are the configurations alone, as checks before a run look at nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines import save_dit, save_stable_diffusion, save_stable_diffusion_xl


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pipelines by the kind of prior, for latents of 4×8×8 from images of 8 px; configurations alone."""
    saved = {
        "stable-diffusion": save_stable_diffusion(tmp_path_factory.mktemp("sd")),
        "dit": save_dit(tmp_path_factory.mktemp("dit") / "dit"),
        "image-to-image": save_stable_diffusion_xl(tmp_path_factory.mktemp("xl")),
    }
    for weights in [f for folder in saved.values() for f in folder.rglob("*.safetensors")]:
        weights.unlink()
    return saved
