"""Where models run, and how."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel

from ddoq_core.decode.dit import dit_prior
from ddoq_core.devices import algorithms_tried, memory_format, sent
from ddoq_core.encode.autoencoder import KLAutoencoder, encode
from tests.pipelines import tiny_vae

SIZES: dict[str, Any] = {
    "num_attention_heads": 1, "attention_head_dim": 8, "num_layers": 1, "sample_size": 4, "num_embeds_ada_norm": 2,
}  # fmt: skip


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_prior_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    transformer, z = DiTTransformer2DModel(**SIZES), torch.randn(2, 4, 4, 4)

    def draw() -> torch.Tensor:
        prior = dit_prior(transformer, DDIMScheduler(), range(2))
        return prior.sample(z, torch.arange(2), z, strength=0.5, guidance_scale=1.0, num_steps=2)

    plain = draw()
    monkeypatch.setenv("DDOQ_COMPILE", "1")
    torch._dynamo.utils.counters.clear()
    torch.testing.assert_close(draw(), plain, rtol=1e-3, atol=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "something was compiled"


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_autoencoder_encodes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = KLAutoencoder(tiny_vae())
    pictures = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    plain = encode(model.compiled(), pictures, dtype=np.float32)
    monkeypatch.setenv("DDOQ_COMPILE", "1")
    torch._dynamo.utils.counters.clear()
    np.testing.assert_allclose(encode(model.compiled(), pictures, dtype=np.float32), plain, rtol=1e-3, atol=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "something was compiled"


def test_cudnn_tries_its_algorithms_in_a_training_alone() -> None:
    seen = []
    with algorithms_tried():
        seen.append(torch.backends.cudnn.benchmark)
    assert [*seen, torch.backends.cudnn.benchmark] == [True, False]
    with pytest.raises(KeyError), algorithms_tried():
        raise KeyError
    assert not torch.backends.cudnn.benchmark


def test_on_a_cpu_nothing_is_sent_or_laid_out_anew() -> None:
    x, cpu = torch.ones(2, 3, 4, 4), torch.device("cpu")
    assert sent(x, cpu) is x
    assert memory_format(cpu) == torch.contiguous_format
    assert memory_format(torch.device("cuda")) == torch.channels_last
