"""Training of a flow: it learns its classes, is what was saved, and goes on bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddoq_core.decode.flow import flow_prior, load_trained_prior
from ddoq_core.decode.noise import noise_of, unit_seeds
from ddoq_core.decode.training import PART, channel_statistics, train_prior
from tests.ddoq_core.test_fitting import BufferCheckpoint, Cut

SETTINGS: dict[str, Any] = {
    "num_layers": 2, "num_heads": 2, "head_dim": 16, "patch_size": 2, "num_steps": 300, "batch_size": 32,
    "learning_rate": 5e-3, "label_dropout": 0.1, "seed": 0,
}  # fmt: skip
MEANS, STDS = np.array([[3.0, -50.0], [5.0, -10.0]]), np.array([0.5, 10.0])  # of two classes, of two channels


def two_clouds(n: int = 256) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    labels = np.arange(n) % 2
    z = MEANS[labels][:, :, None, None] + STDS[:, None, None] * np.random.default_rng(0).normal(size=(n, 2, 4, 4))
    return z.astype(np.float16), labels


def test_a_trained_prior_brings_noise_to_its_class_also_when_saved_and_loaded(tmp_path: Path) -> None:
    transformer, losses = train_prior(*two_clouds(), 2, **SETTINGS, checkpoint=BufferCheckpoint())
    assert losses[-1] < 0.8 * losses[0]
    transformer.save_pretrained(tmp_path)
    loaded, labels = load_trained_prior(tmp_path), torch.tensor([0, 1] * 100)
    noise = noise_of(unit_seeds(200, 0, "n01"), (2, 4, 4))
    sampling: dict[str, Any] = {"strength": 1.0, "guidance_scale": 1.0, "num_steps": 25}
    found = loaded.sample(torch.zeros(200, 2, 4, 4), labels, noise, **sampling)
    for label in (0, 1):
        of_class = found[labels == label].transpose(0, 1).flatten(1)  # (2, …)
        for channel in (0, 1):
            assert abs(of_class[channel].mean() - MEANS[label, channel]) < STDS[channel]
            assert STDS[channel] / 2 < of_class[channel].std() < 2 * STDS[channel]
    fresh = flow_prior(transformer).sample(torch.zeros(200, 2, 4, 4), labels, noise, **sampling)
    assert torch.equal(found, fresh)


def test_a_prior_whose_training_was_cut_is_the_same_also_on_more_cores() -> None:
    def run(checkpoint: BufferCheckpoint, num_threads: int) -> dict[str, torch.Tensor]:
        settings = {**SETTINGS, "num_steps": 8, "batch_size": 2 * PART + 1, "num_threads": num_threads}
        try:
            return train_prior(*two_clouds(), 2, **settings, checkpoint=checkpoint)[0].state_dict()
        except Cut:
            return run(checkpoint, num_threads + 1)

    whole, cut = run(BufferCheckpoint(), 1), run(BufferCheckpoint((2, 7, 8)), 1)
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_statistics_of_a_channel_are_summed_beyond_half_precision() -> None:
    z = np.full((4000, 2, 4, 4), 1000, np.float16)
    z[:, 1, ::2] = -1000
    mean, std = channel_statistics(z)
    assert mean.tolist() == [1000, 0] and std[1] == 1000
    assert std[0] > 0, "a channel that is always the same can be divided by its deviation"
