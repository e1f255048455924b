"""Batches that do not fit into memory are done in halves, and no picture changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ddoq_core.decode.decoder import Decoder
from ddoq_core.decode.dit import load_dit
from ddoq_core.decode.memory import HalvingBatches, batch_size
from ddoq_core.decode.noise import unit_seeds
from ddoq_core.decode.prior import Prior
from ddoq_core.encode.autoencoder import KLAutoencoder
from ddoq_core.images import resized
from tests.pipelines import save_dit, tiny_vae

CPU = torch.device("cpu")


class Short:
    """Doubles its argument, with memory for so many rows."""

    def __init__(self, rows: int, error: BaseException) -> None:
        self.rows, self.error, self.seen = rows, error, []

    def __call__(self, x: torch.Tensor, names: list[int]) -> torch.Tensor:
        assert x.flatten().tolist() == names
        self.seen.append(len(x))
        if len(x) > self.rows:
            raise self.error
        return 2 * x


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("no"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")],
)
def test_halves_until_it_fits_and_remembers(error: BaseException) -> None:
    work, batches = Short(3, error), HalvingBatches(16)
    x = torch.arange(21).view(-1, 1)
    assert torch.equal(batches.map(work, x, list(range(21))), 2 * x)
    assert work.seen == [16, 8, 4, 2, *[2] * 9, 1]
    assert batches.size == 2


def test_what_does_not_fit_alone_and_other_errors_are_raised() -> None:
    x = torch.arange(4).view(-1, 1)
    with pytest.raises(torch.OutOfMemoryError):
        HalvingBatches(4).map(Short(0, torch.OutOfMemoryError("no")), x, list(range(4)))
    work = Short(0, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        HalvingBatches(4).map(work, x, list(range(4)))
    assert work.seen == [4]


def test_size_by_memory() -> None:
    assert [batch_size(CPU, side, side) for side in (4, 32, 64, 512)] == [1024, 16, 4, 1]


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    return load_dit(str(save_dit(tmp_path_factory.mktemp("dit"))), ("cock", "goldfish", "shark"))


def pictures(prior: Prior, size: int) -> np.ndarray:
    def sample(z: torch.Tensor, *more: Any, **seeds: Any) -> torch.Tensor:
        return prior.sample(z, *more, strength=0.5, guidance_scale=2.0, num_steps=8, **seeds)

    torch.manual_seed(1)
    decoder = Decoder(KLAutoencoder(tiny_vae()), sample, 8, size)
    z = torch.randn(30, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    return decoder(z, torch.arange(30) % 3, unit_seeds(30, 0, "n01"))


@pytest.mark.parametrize("size", [1, 7, 16])
def test_another_batch_size_gives_the_same_pictures(prior: Prior, size: int) -> None:
    whole, parts = pictures(prior, 30).astype(int), pictures(prior, size).astype(int)
    assert whole.std() > 10, "pictures with something to see"
    assert np.abs(whole - parts).max() <= 1
    assert (whole != parts).mean() <= 0.001


def test_pictures_are_the_same_where_memory_is_short(prior: Prior) -> None:
    tried: list[int] = []

    def denoise(z: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        tried.append(len(z))
        if len(z) > 16:
            raise torch.OutOfMemoryError(f"no memory for {len(z)}")
        return prior.denoise(z, t, condition)

    short = pictures(Prior(denoise, prior.scheduler, prior.conditions, prior.unconditional), 30).astype(int)
    assert tried[0] == 60 and max(tried[2:]) <= 14, "with and without class in one batch: 30, 15 and 7 pictures"
    whole = pictures(prior, 30).astype(int)
    assert np.abs(whole - short).max() <= 1
    assert (whole != short).mean() <= 0.001


def test_pictures_are_brought_to_size_without_aliasing() -> None:
    stripes = np.zeros((2, 32, 32, 3), np.uint8)
    stripes[:, :, ::2] = 255  # every other column: without a filter, 16 px would show one of the two alone
    assert resized(stripes, 32) is stripes
    small = resized(stripes, 14)
    assert small.shape == (2, 14, 14, 3) and small.dtype == np.uint8
    assert np.abs(small[:, :, 2:-2].astype(int) - 127).max() < 40


def test_the_decoder_gives_the_size_that_is_asked_for() -> None:
    decoder = Decoder(KLAutoencoder(tiny_vae()), None, 5, 4)
    assert decoder(torch.zeros(6, 4, 8, 8), torch.zeros(6), [0] * 6).shape == (6, 5, 5, 3)
