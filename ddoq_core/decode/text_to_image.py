"""PixArt-α, PixArt-Σ and Sana as priors: text-to-image transformers without an image-to-image pipeline of diffusers.

Their pipelines would take noised latents and the rest of a schedule, but Sana's own scheduler refuses given timesteps;
here `Prior` takes the steps. The pipelines embed the prompts alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from ddoq_core.decode.prior import Prior
from ddoq_core.decode.stable_diffusion import PROMPTS_AT_ONCE
from ddoq_core.devices import best_device, placed

VAE_FACTOR = 8  # pixels along a side for each latent of PixArt


def text_to_image_prior(pipeline: Any, prompts: Sequence[str], negative_prompt: str) -> Prior:
    """The prior of a pipeline; its text encoder runs once per prompt and is not kept.

    A condition is (tokens, d + 1): the embeddings, and last whether a token is the prompt's or fills it up.
    """
    model, scheduler = placed(pipeline.transformer), pipeline.scheduler
    pipeline.text_encoder.eval().to(best_device())
    usual = inspect.signature(pipeline.__call__).parameters.get("complex_human_instruction")  # of Sana
    instruction = {"complex_human_instruction": usual.default} if usual else {}
    own = _embedded(pipeline, list(prompts), model.dtype, **instruction)
    both = torch.cat([own, _embedded(pipeline, [negative_prompt], model.dtype)])  # (n + 1, tokens, d + 1)
    both = both[:, both[..., -1].any(dim=0)]  # without the tokens that no prompt has, most of 300
    scale, is_told_size = model.config.get("timestep_scale", 1), hasattr(model, "use_additional_conditions")

    def denoise(z: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        found = model(
            z.to(model.dtype),
            encoder_hidden_states=condition[..., :-1],
            encoder_attention_mask=condition[..., -1],
            timestep=t * scale,
            **(_size(z, model.dtype) if is_told_size else {}),
        ).sample
        return found[:, : z.shape[1]].float()  # PixArt tells a variance too

    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler = _Euler.from_config(scheduler.config)
    return Prior(denoise, scheduler, both[:-1], both[-1])


@torch.inference_mode()
def _embedded(pipeline: Any, prompts: list[str], dtype: torch.dtype, **settings: Any) -> torch.Tensor:
    """Text embeddings of prompts and the masks of their tokens, (n, tokens, d + 1)."""
    parts = [prompts[k : k + PROMPTS_AT_ONCE] for k in range(0, len(prompts), PROMPTS_AT_ONCE)]
    told = [pipeline.encode_prompt(part, False, device=best_device(), **settings)[:2] for part in parts]
    return torch.cat([torch.cat([words, mask[..., None]], dim=-1).to(dtype) for words, mask in told])


def _size(z: torch.Tensor, dtype: torch.dtype) -> dict[str, Any]:
    """What PixArt-α of 1024 px is told of the picture; the others do not look at it."""
    sides = VAE_FACTOR * torch.tensor(z.shape[-2:], dtype=dtype, device=z.device).expand(len(z), 2)
    return {"added_cond_kwargs": {"resolution": sides, "aspect_ratio": sides[:, :1] / sides[:, 1:]}}


class _Euler(FlowMatchEulerDiscreteScheduler):
    """Euler's steps under the names that the other schedulers have."""

    def add_noise(self, z: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.scale_noise(z, t, noise)

    def scale_model_input(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return z
