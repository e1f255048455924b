"""Stable Diffusion as a prior (arXiv 2112.10752), conditioned on a prompt per class as D4M does (arXiv 2407.15138)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ddoq_core.decode.prior import Prior
from ddoq_core.devices import best_device, placed
from ddoq_core.loading import load_pretrained_network

PROMPTS_AT_ONCE = 64


def load_stable_diffusion(weights: str, prompts: Sequence[str], negative_prompt: str) -> Prior:
    """The prior of a StableDiffusionPipeline's folder or hub name.

    Raises OSError where there is none, ValueError for tensors that do not fit.
    """
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    pipeline = StableDiffusionPipeline.from_pretrained(
        weights,
        unet=load_pretrained_network(UNet2DConditionModel, weights, "unet"),
        text_encoder=load_pretrained_network(CLIPTextModel, weights, "text_encoder"),
        vae=None,
        safety_checker=None,
        requires_safety_checker=False,
        low_cpu_mem_usage=False,  # is about networks, of which none is loaded here
    )
    return stable_diffusion_prior(pipeline, prompts, negative_prompt)


def stable_diffusion_prior(pipeline: Any, prompts: Sequence[str], negative_prompt: str) -> Prior:
    """The prior of a pipeline; its text encoder runs once per prompt and is not kept."""
    model = placed(pipeline.unet)
    embedded = _embed(pipeline, [*prompts, negative_prompt]).to(model.dtype)

    def denoise(z: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return model(z.to(model.dtype), t, encoder_hidden_states=condition).sample.float()

    return Prior(denoise, pipeline.scheduler, embedded[:-1], embedded[-1])


@torch.inference_mode()
def _embed(pipeline: Any, prompts: list[str]) -> torch.Tensor:
    """Text embeddings (n, tokens, d) float32 of prompts."""
    device = best_device()
    pipeline.text_encoder.eval().to(device)
    parts = [prompts[k : k + PROMPTS_AT_ONCE] for k in range(0, len(prompts), PROMPTS_AT_ONCE)]
    return torch.cat([pipeline.encode_prompt(part, device, 1, False)[0] for part in parts])
