"""Diffusion priors: what turns a centroid into a picture of its class.

A prior noises a centroid to `strength` of the schedule and denoises it, conditioned on the class
(arXiv 2501.07681: x = D ∘ U_t(z, class)). Trained here, or a diffusers DiT or Stable Diffusion folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DiTTransformer2DModel, SchedulerMixin
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray

from ddoq_core.class_names import imagenet_index
from ddoq_core.devices import best_device
from ddoq_core.fitting import Keeper, fit, one_cycle
from ddoq_core.seeds import derive_seed

Denoise = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Prior:
    """A conditional denoiser and its schedule.

    denoise(z (B, C, H, W), t (B,), condition (B, …)) is the predicted noise (or what the schedule expects);
    conditions[c] and `unconditional` are the conditions of class c and of no class.
    """

    denoise: Denoise
    scheduler: SchedulerMixin
    conditions: torch.Tensor
    unconditional: torch.Tensor

    @torch.inference_mode()
    def sample(
        self,
        z: torch.Tensor,
        labels: torch.Tensor,
        noise: torch.Tensor,
        *,
        strength: float,
        guidance_scale: float,
        num_steps: int,
    ) -> torch.Tensor:
        """Latents (B, C, H, W) from centroids z noised to `strength`, denoised in strength · num_steps steps."""
        device = self.conditions.device
        z, labels, noise = z.to(device), labels.to(device), noise.to(device)
        self.scheduler.set_timesteps(num_steps, device=device)
        first = num_steps - min(int(num_steps * strength), num_steps)
        timesteps = self.scheduler.timesteps[first * self.scheduler.order :]
        if len(timesteps) == 0:
            return z
        z = self.scheduler.add_noise(z, noise, timesteps[:1].expand(len(z)))
        condition = torch.cat([self.conditions[labels], self.unconditional.expand(len(z), *self.unconditional.shape)])
        for t in timesteps:
            z_in = self.scheduler.scale_model_input(torch.cat([z, z]), t)
            with_class, without = self.denoise(z_in, t.expand(2 * len(z)), condition).chunk(2)
            guided = without + guidance_scale * (with_class - without)  # classifier-free guidance, arXiv 2207.12598
            z = self.scheduler.step(guided, t, z, return_dict=False)[0]
        return z


def dit_prior(transformer: DiTTransformer2DModel, scheduler: SchedulerMixin, classes: Sequence[int]) -> Prior:
    """A diffusion transformer (arXiv 2212.09748); `classes` are its ids of the recipe's classes, in label order."""
    in_channels, none = transformer.config.in_channels, transformer.config.num_embeds_ada_norm

    def denoise(z: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        predicted = transformer(z, timestep=t, class_labels=condition).sample
        return predicted[:, :in_channels]  # a learned variance, if any, comes after the noise

    device = transformer.device
    return Prior(denoise, scheduler, torch.tensor(classes, device=device), torch.tensor(none, device=device))


def load_trained_prior(folder: Path) -> Prior:
    """What train_prior made and save_prior wrote."""
    transformer = DiTTransformer2DModel.from_pretrained(folder / "transformer", low_cpu_mem_usage=False)
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    classes = range(transformer.config.num_embeds_ada_norm)
    return dit_prior(transformer.eval().requires_grad_(False).to(best_device()), scheduler, classes)


def load_dit(weights: str, class_names: Sequence[str]) -> Prior:
    """A DiTPipeline folder or hub name. Classes are WordNet ids or names it has. Raises ValueError for others."""
    from diffusers import DiTPipeline

    pipeline = DiTPipeline.from_pretrained(weights, low_cpu_mem_usage=False)
    num_classes = pipeline.transformer.config.num_embeds_ada_norm
    found = {name: _dit_id(name, pipeline.labels, num_classes) for name in class_names}
    unknown = [name for name, number in found.items() if number is None]
    if unknown:
        raise ValueError(f"the prior {weights} does not know {len(unknown)} classes, the first is {unknown[0]!r}")
    ids = [number for number in found.values() if number is not None]
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    return dit_prior(pipeline.transformer.eval().requires_grad_(False).to(best_device()), scheduler, ids)


def _dit_id(class_name: str, labels: dict[str, int], num_classes: int) -> int | None:
    """A DiT's id of a class: by WordNet id where it has ImageNet-1K's classes (names are not unique), else by name."""
    number = imagenet_index(class_name) if num_classes == 1000 else None
    return labels.get(class_name) if number is None else number


def load_stable_diffusion(weights: str, prompts: Sequence[str], negative_prompt: str) -> Prior:
    """A StableDiffusionPipeline folder or hub name; the text encoder runs once per prompt and is dropped."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        weights, safety_checker=None, requires_safety_checker=False, low_cpu_mem_usage=False
    )
    device = best_device()
    unet = pipeline.unet.eval().requires_grad_(False).to(device)
    with torch.inference_mode():
        embedded = [pipeline.encode_prompt(p, "cpu", 1, False)[0] for p in (*prompts, negative_prompt)]

    def denoise(z: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return unet(z, t, encoder_hidden_states=condition).sample

    return Prior(denoise, pipeline.scheduler, torch.cat(embedded[:-1]).to(device), embedded[-1][0].to(device))


def train_prior(
    z: NDArray[np.float32],
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    num_layers: int,
    num_heads: int,
    head_dim: int,
    patch_size: int,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    label_dropout: float,
    seed: int,
    keeper: Keeper,
) -> tuple[DiTTransformer2DModel, DDIMScheduler, list[float]]:
    """A small latent DiT on latents z (n, C, H, W) of all classes; the weights returned are their moving average."""
    latents, y = torch.from_numpy(z), torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DiTTransformer2DModel(
            num_attention_heads=num_heads,
            attention_head_dim=head_dim,
            in_channels=z.shape[1],
            out_channels=z.shape[1],
            num_layers=num_layers,
            sample_size=z.shape[2],
            patch_size=patch_size,
            num_embeds_ada_norm=num_classes,
        ).eval()  # its own label dropout, drawn for each layer apart, stays off
    device = best_device()
    model.to(device)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.0, betas=(0.9, 0.99))
    average = EMAModel(model.parameters(), decay=0.999)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(latents), (batch_size,), generator=generator)
        t = torch.randint(scheduler.config.num_train_timesteps, (batch_size,), generator=generator)
        noise = torch.randn(latents[chosen].shape, generator=generator)
        dropped = torch.rand(batch_size, generator=generator) < label_dropout
        condition = torch.where(dropped, num_classes, y[chosen])
        noised = scheduler.add_noise(latents[chosen], noise, t).to(device)
        predicted = model(noised, timestep=t.to(device), class_labels=condition.to(device)).sample
        return F.mse_loss(predicted, noise.to(device))

    losses = fit(
        loss,
        num_steps,
        model=model,
        optimizer=optimizer,
        schedule=one_cycle(optimizer, learning_rate, num_steps),
        seed=seed,
        keeper=keeper,
        extra={"average": average},
        after_step=lambda: average.step(model.parameters()),
    )
    average.copy_to(model.parameters())
    return model.requires_grad_(False), scheduler, losses


def unit_noise(shape: tuple[int, ...], seed: int, *unit: Any) -> torch.Tensor:
    """Standard normal noise (K, C, H, W) in which row k depends on (seed, unit, k) alone."""
    rows = [
        torch.randn(shape[1:], generator=torch.Generator().manual_seed(derive_seed(seed, "noise", *unit, k)))
        for k in range(shape[0])
    ]
    return torch.stack(rows)
