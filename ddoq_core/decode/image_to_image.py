"""Stronger text-to-image models as priors: by diffusers' own image-to-image pipelines, which start from latents, or as
ddoq_core.decode.text_to_image has those without one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch

from ddoq_core.decode.prior import Prior
from ddoq_core.decode.stable_diffusion import PROMPTS_AT_ONCE
from ddoq_core.decode.text_to_image import text_to_image_prior
from ddoq_core.devices import best_device, placed
from ddoq_core.errors import InvalidInput
from ddoq_core.loading import load_pretrained_network

EMBEDDED = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
DENOISERS, ENCODERS = ("unet", "transformer"), ("text_encoder", "text_encoder_2", "text_encoder_3")
FAMILIES = ("StableDiffusionXL", "StableDiffusion3")  # whose prompts are embedded as EMBEDDED says
WITHOUT_IMAGES = ("PixArtAlphaPipeline", "PixArtSigmaPipeline", "SanaPipeline")


def load_image_to_image(weights: str, prompts: Sequence[str], negative_prompt: str) -> Prior | PipelinePrior:
    """The prior of a pipeline's folder or hub name: Stable Diffusion XL, 3 and 3.5, PixArt-α and -Σ, Sana, and what is
    finetuned from these.

    Raises OSError where there is none, InvalidInput for another pipeline and for tensors that do not fit.
    """
    from diffusers import AutoPipelineForImage2Image, DiffusionPipeline

    parts = DiffusionPipeline.load_config(weights)
    name = str(parts.get("_class_name", ""))
    if not name.startswith(FAMILIES) and name not in WITHOUT_IMAGES:
        families = "Stable Diffusion XL, 3 or 3.5, PixArt-α or -Σ, or Sana"
        raise InvalidInput(f"{weights} holds a {name[:100]!r}: give a pipeline of {families}")
    networks = {
        part: load_pretrained_network(getattr(import_module(parts[part][0]), parts[part][1]), weights, part)
        for part in (*DENOISERS, *ENCODERS)
        if parts.get(part, [None])[0]
    }
    absent = {part: None for part, kind in parts.items() if isinstance(kind, list) and kind[0] is None}
    if name in WITHOUT_IMAGES:
        try:
            pipeline = DiffusionPipeline.from_pretrained(weights, **networks, vae=None, low_cpu_mem_usage=False)
        except (ImportError, ValueError) as error:
            told = str(error).strip().partition("\n")[0]
            hint = "if its tokenizer is a spiece.model, pip install sentencepiece protobuf"
            raise InvalidInput(f"{weights} cannot be loaded ({told}): {hint}") from error
        return text_to_image_prior(pipeline, prompts, negative_prompt)
    pipeline = AutoPipelineForImage2Image.from_pretrained(weights, **networks, **absent, low_cpu_mem_usage=False)
    return pipeline_prior(pipeline, prompts, negative_prompt)


def pipeline_prior(pipeline: Any, prompts: Sequence[str], negative_prompt: str) -> PipelinePrior:
    """The prior of an image-to-image pipeline. Its text encoders run once for each prompt and are not kept."""
    device = best_device()
    for name in ENCODERS:
        if getattr(pipeline, name, None) is not None:
            getattr(pipeline, name).eval().to(device)
    embedded = _embedded(pipeline, list(prompts), negative_prompt, device)
    pipeline.register_modules(**{name: None for name in ENCODERS if hasattr(pipeline, name)})
    name = next(name for name in DENOISERS if getattr(pipeline, name, None) is not None)
    model = placed(getattr(pipeline, name))
    pipeline.register_modules(**{name: model})
    pipeline.set_progress_bar_config(disable=True)
    return PipelinePrior(pipeline, {key: value.to(device, model.dtype) for key, value in embedded.items()})


@torch.inference_mode()
def _embedded(pipeline: Any, prompts: list[str], negative: str, device: torch.device) -> dict[str, torch.Tensor]:
    """What the prompts (n, …) and the negative one (1, …) are to the denoiser."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in EMBEDDED}
    settings = {"device": device, "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    if "prompt_3" in pipeline.encode_prompt.__code__.co_varnames:
        settings |= {"prompt_3": None}
    for k in range(0, len(prompts), PROMPTS_AT_ONCE):
        part = prompts[k : k + PROMPTS_AT_ONCE]
        told = pipeline.encode_prompt(part, prompt_2=None, negative_prompt=[negative] * len(part), **settings)
        for name, value in zip(EMBEDDED, told, strict=True):
            found[name].append(value[:1] if name.startswith("negative") else value)
    return {name: torch.cat(parts[:1] if name.startswith("negative") else parts) for name, parts in found.items()}


class PipelinePrior:
    """A pipeline of diffusers that noises given latents and denoises them, by its own scheduler.

    embedded  of the classes' prompts (n, …) and the negative one (1, …), by the names of the pipeline's arguments
    """

    def __init__(self, pipeline: Any, embedded: dict[str, torch.Tensor]) -> None:
        self.pipeline, self.embedded = pipeline, embedded

    @torch.inference_mode()
    def sample(
        self,
        z: torch.Tensor,
        labels: torch.Tensor,
        noise: torch.Tensor,
        *,
        strength: float | None,
        guidance_scale: float,
        num_steps: int,
        seeds: Sequence[int],
        **_: Any,
    ) -> torch.Tensor:
        """Latents (B, C, H, W) float32 from centroids z (B, C, H, W), in strength · num_steps steps.

        seeds  B seeds, from each of which the pipeline draws the same noise as `noise` has, and what its scheduler adds
        """
        if strength is None:
            raise InvalidInput("a pipeline of diffusers starts at a share of its steps: set decode.strength")
        if int(num_steps * strength) == 0:
            return z
        own = {k: v[labels.to(v.device)] for k, v in self.embedded.items() if not k.startswith("negative")}
        none = {k: v.expand(len(z), *v.shape[1:]) for k, v in self.embedded.items() if k.startswith("negative")}
        found = self.pipeline(
            image=z.to(own["prompt_embeds"].dtype),
            strength=strength,
            guidance_scale=guidance_scale,
            num_inference_steps=num_steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="latent",
            **own,
            **none,
        )
        return found.images.float()

    def with_sampler(self, sampler: str) -> PipelinePrior:
        """The same: its scheduler is its own."""
        return self
