"""Diffusion transformers as priors (arXiv 2212.09748): any diffusers DiTPipeline, or a transformer trained here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import DiTTransformer2DModel, SchedulerMixin

from ddoq_core.decode.prior import Prior
from ddoq_core.devices import placed
from ddoq_core.imagenet import dit_ids
from ddoq_core.loading import load_pretrained_network


def load_dit(weights: str, class_names: Sequence[str]) -> Prior:
    """A DiTPipeline folder or hub name. Classes are WordNet ids or names it has.

    Raises OSError where there is none, ValueError for classes it does not know and tensors that do not fit.
    """
    from diffusers import DiTPipeline

    transformer = load_pretrained_network(DiTTransformer2DModel, weights, "transformer")
    pipeline = DiTPipeline.from_pretrained(weights, transformer=transformer, vae=None, low_cpu_mem_usage=False)
    ids = dit_ids(class_names, pipeline.labels, transformer.config.num_embeds_ada_norm)
    return dit_prior(transformer, pipeline.scheduler, ids)


def dit_prior(transformer: DiTTransformer2DModel, scheduler: SchedulerMixin, classes: Sequence[int]) -> Prior:
    """The prior of a transformer; `classes` are its ids of the recipe's classes, in label order."""
    config = transformer.config
    model = placed(transformer)

    def denoise(z: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        predicted = model(z.to(model.dtype), timestep=t, class_labels=condition).sample  # (B, C or 2C, H, W)
        return predicted[:, : config.in_channels].float()  # ε (B, C, H, W); a learned variance, if any, comes after it

    ids = torch.tensor([*classes, config.num_embeds_ada_norm], device=model.device)  # the last one is no class
    return Prior(denoise, scheduler, ids[:-1], ids[-1])
