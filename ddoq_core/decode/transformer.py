"""The network of the recipe's own prior: a small diffusion transformer (arXiv 2212.09748) that predicts velocities.

As small ones are built today (LightningDiT, arXiv 2501.01423): one projection modulates all blocks (adaLN-single, arXiv
2310.00426) and is zero at the start, as is the last layer; queries and keys are normalised (arXiv 2302.05442).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

NUM_FREQUENCIES = 128


class FlowTransformer(ModelMixin, ConfigMixin):
    """The velocity of latents (B, C, S, S) that are normalised by the mean and deviation of each channel.

    num_classes   class `num_classes` is no class, for guidance (arXiv 2207.12598)
    latents_mean  (C,) of what it was trained on, and latents_std (C,): named as in diffusers' autoencoders
    """

    @register_to_config
    def __init__(
        self,
        channels: int,
        side: int,
        num_classes: int,
        num_layers: int,
        num_heads: int,
        head_dim: int,
        patch_size: int,
        latents_mean: Sequence[float],
        latents_std: Sequence[float],
    ) -> None:
        super().__init__()
        width, patch = num_heads * head_dim, channels * patch_size**2
        self.first = nn.Linear(patch, width)
        self.position = nn.Parameter(0.02 * torch.randn((side // patch_size) ** 2, width))
        self.time = nn.Sequential(nn.Linear(2 * NUM_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_classes + 1, width)
        self.modulation = _zeroed(nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(num_heads, head_dim) for _ in range(num_layers))
        self.last_modulation = _zeroed(nn.Linear(width, 2 * width))
        self.last = _zeroed(nn.Linear(width, patch))
        nn.init.normal_(self.label.weight, std=0.02)

    def forward(self, z: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """v (B, C, S, S) at z_t (B, C, S, S), t (B,) in [0, 1] and classes (B,)."""
        patch, side = self.config.patch_size, z.shape[-1] // self.config.patch_size
        x = F.pixel_unshuffle(z, patch).flatten(2).transpose(1, 2)  # (B, T, C·p²)
        x = self.first(x) + self.position  # (B, T, D)
        c = F.silu(self.time(_frequencies(t).to(z.dtype)) + self.label(labels))[:, None]  # (B, 1, D)
        shared = self.modulation(c)  # (B, 1, 6·D)
        for block in self.blocks:
            x = block(x, shared)
        v = self.last(_modulated(x, *self.last_modulation(c).chunk(2, dim=-1)))  # (B, T, C·p²)
        return F.pixel_shuffle(v.transpose(1, 2).unflatten(2, (side, side)), patch)


class Block(nn.Module):
    """x ← x + γ₁·attention(x̃), x ← x + γ₂·mlp(x̃), each x̃ = LN(x)·(1 + scale) + shift."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        width, self.heads = num_heads * head_dim, (3, num_heads, head_dim)
        self.modulation = nn.Parameter(torch.zeros(6 * width))  # the block's own, added to what all share
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(head_dim))  # of normalised queries; in q·k it is the keys' as well
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (shared + self.modulation).chunk(6, dim=-1)
        x = x + gate_1 * self._attention(_modulated(x, shift_1, scale_1))
        return x + gate_2 * self.mlp(_modulated(x, shift_2, scale_2))

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, self.heads).permute(2, 0, 3, 1, 4)  # each (B, heads, T, d)
        q, k = F.layer_norm(q, q.shape[-1:], self.scale), F.layer_norm(k, k.shape[-1:])
        return self.out(attention(q, k, v).transpose(1, 2).flatten(2))


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q·kᵀ/√d)·v of (B, heads, T, d), written out on a CPU: of 16 tokens in bfloat16, torch's own takes seven
    times as long there."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def _modulated(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def _frequencies(t: torch.Tensor) -> torch.Tensor:
    """Cosines and sines (B, 2·NUM_FREQUENCIES) of 1000·t, as DiT's of its timesteps."""
    rates = torch.exp(-math.log(10_000) * torch.arange(NUM_FREQUENCIES, device=t.device) / NUM_FREQUENCIES)
    angles = 1000 * t[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
