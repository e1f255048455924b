"""Batches that do not fit into memory are done in halves, and no picture changes."""

from __future__ import annotations

import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from ddoq_core.decode.decoder import Decoder
from ddoq_core.decode.dit import load_dit
from ddoq_core.decode.noise import unit_seeds
from ddoq_core.decode.prior import Prior
from ddoq_core.encode.autoencoder import KLAutoencoder, encode, encode_batches, pictures_of, reconstruction_psnr
from ddoq_core.images import resized
from ddoq_core.memory import HalvingBatches, batch_size
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
    [
        torch.OutOfMemoryError("no"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
    ],
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


class Made(NamedTuple):
    """What an autoencoder makes of images, and whether memory sufficed for all pictures at once."""

    whole: bool
    z: np.ndarray
    pictures: np.ndarray
    psnr: float


def made_of(images: np.ndarray, free_bytes: int | None) -> Made:
    """Encoded in one batch, decoded in one, and judged, in a process that can take so many bytes more."""
    torch.manual_seed(1)
    model, all_of_them, whole = KLAutoencoder(tiny_vae()), len(images), True
    pictures_of(model, torch.from_numpy(encode(model, images[:1])))  # loads what is loaded once
    if free_bytes is not None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + free_bytes, resource.RLIM_INFINITY))
    [z] = encode_batches(model, [images], sample=("seed",))
    decoder, centroids = Decoder(model, None, images.shape[1], all_of_them), torch.from_numpy(z)
    try:
        pictures_of(model, centroids)
    except RuntimeError:
        whole = False
    pictures = decoder(centroids, torch.zeros(all_of_them), [0] * all_of_them)
    return Made(whole, z, pictures, reconstruction_psnr(model, images))


def test_a_process_short_of_memory_makes_the_same_latents_and_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # what is freed can be had again
    images = np.random.default_rng(0).integers(0, 256, (256, 32, 32, 3)).astype(np.uint8)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        enough, little = made_of(images, None), pool.submit(made_of, images, 56 * 2**20).result()
    assert enough.whole and not little.whole
    np.testing.assert_allclose(little.z, enough.z, atol=1e-5)
    assert np.abs(little.pictures.astype(int) - enough.pictures).max() <= 1
    assert little.psnr == pytest.approx(enough.psnr, abs=1e-4)


def test_no_layer_makes_more_elements_than_a_gpu_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDOQ_DEVICE", "meta")  # shapes without numbers
    with torch.device("meta"):
        network = AutoencoderKL(  # Stable Diffusion's
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
    made: list[int] = []
    for layer in network.modules():
        layer.register_forward_hook(lambda _, __, out: made.append(getattr(out, "numel", int)()))
    model = KLAutoencoder(network)
    assert [model.most_at_once(size_px) for size_px in (256, 512, 4096)] == [64, 16, 1]
    model.posterior(torch.empty(64, 3, 256, 256, device="meta"))
    model.pictures(torch.empty(64, 4, 32, 32, device="meta"))
    assert max(made) == 2**30
