"""Where models run, and how."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel

from ddoq_core.decode.dit import dit_prior
from ddoq_core.devices import algorithms_tried, convolves_well_in_bfloat16, memory_format, sent
from ddoq_core.encode.autoencoder import KLAutoencoder, encode
from ddoq_core.train.accuracy import features
from ddoq_core.train.augment import Augmentation
from ddoq_core.train.networks import ClassifierSpec, build_classifier
from ddoq_core.train.protocol import Protocol
from ddoq_core.train.students import train_student
from tests.ddoq_core.test_fitting import BufferCheckpoint
from tests.pipelines import tiny_vae

SPEC = ClassifierSpec("convnet-1-4", 2, 8)
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


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_student_learns_the_same_and_leaves_its_teacher_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = build_classifier(SPEC, seed=1).eval().requires_grad_(False)
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    labels, protocol = np.arange(6) % 2, Protocol(num_epochs=2, batch_size=4, augmentation=Augmentation())

    def trained() -> dict[str, torch.Tensor]:
        student = build_classifier(SPEC, seed=0)
        train_student(student, images, labels, np.ones(6), protocol, teacher, 0, BufferCheckpoint())
        return student.state_dict()

    plain = trained()
    monkeypatch.setenv("DDOQ_COMPILE", "1")
    torch._dynamo.utils.counters.clear()
    most = 1e-2 if convolves_well_in_bfloat16(torch.device("cpu")) else 1e-3  # fewer sums are rounded to bfloat16
    torch.testing.assert_close(trained(), plain, rtol=1e-3, atol=most)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "something was compiled"
    assert features(teacher, images).shape == (6, 64), "hooks are called, as of no compiled network"


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
