"""The network of the recipe's own prior: zero at the start, patches in their places, attention as torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ddoq_core.decode.transformer import FlowTransformer, attention


def build(patch_size: int = 1, **changes: Any) -> FlowTransformer:
    torch.manual_seed(0)
    sizes = {"channels": 2, "side": 4, "num_classes": 3, "num_layers": 2, "num_heads": 2, "head_dim": 8}
    statistics = {"latents_mean": (0.0, 0.5), "latents_std": (1.0, 2.0)}
    return FlowTransformer(**{**sizes, **statistics, "patch_size": patch_size, **changes})


INPUT = (torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1)), torch.rand(3), torch.arange(3))


def test_its_velocity_is_zero_at_the_start_and_its_blocks_change_nothing() -> None:
    model = build()
    assert not model(*INPUT).any()
    x = torch.randn(3, 16, 16)
    assert torch.equal(model.blocks[0](x, torch.zeros(3, 1, 96)), x)


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_patches_come_back_to_their_places(patch_size: int) -> None:
    """Without blocks, a token is what its patch alone makes it."""
    model = build(patch_size, num_layers=0)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    z, t, labels = INPUT
    other = z.clone()
    other[:, :, :patch_size, :patch_size] += 1
    changed = (model(z, t, labels) != model(other, t, labels)).any(0).any(0)
    assert changed[:patch_size, :patch_size].all() and changed.sum() == patch_size**2


def test_time_and_class_matter() -> None:
    model = build()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    z, t, labels = INPUT
    found = model(z, t, labels)
    for other in (model(z, t + 0.01, labels), model(z, t, labels + 1)):
        assert (found - other).abs().amax((1, 2, 3)).min() > 1e-4


def test_attention_written_out_is_torch_s_own() -> None:
    q, k, v = (torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(n)) for n in range(3))
    torch.testing.assert_close(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
