"""Benchmark of decoding: `python -m tests.bench.decode` prints a table and, last, one line of JSON.

Images per second of our decoding against D4M's way: StableDiffusionImg2ImgPipeline called for one centroid at a time,
which encodes the prompt each time and draws its noise unseeded. Both use the same pipeline of random weights, a
miniature of Stable Diffusion v1.5: three levels of 32, 64 and 128 channels on latents of 4×8×8 instead of four of 320
to 1280 on 4×64×64, an autoencoder that enlarges 8 times, a text encoder of one layer whose share of the time is told.
Rounds of the two alternate, on two threads each. What batching gains falls as a network grows: this is no figure for
Stable Diffusion itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
)
from rich.console import Console
from rich.table import Table

from ddoq_core.decode.decoder import Decoder
from ddoq_core.decode.noise import unit_seeds
from ddoq_core.decode.stable_diffusion import stable_diffusion_prior
from ddoq_core.encode.autoencoder import KLAutoencoder
from ddoq_core.memory import batch_size
from tests.pipelines import SD_SCHEDULE, text_encoder, tiny_tokenizer

SETTINGS: dict[str, Any] = {"strength": 0.7, "guidance_scale": 8.0}
SMALL_UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64, 128),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}
SMALL_TEXT = {"width": 32, "num_layers": 1, "num_heads": 4}
PROMPTS, NEGATIVE = ("cat", "dog", "cat dog", "a cat"), "a dog a"
console = Console(width=140)


def stable_diffusion(unet: UNet2DConditionModel, vae: AutoencoderKL, **text: int) -> StableDiffusionImg2ImgPipeline:
    """A pipeline of random weights around a network; prompts are 77 tokens long."""
    tokenizer = tiny_tokenizer(Path(tempfile.mkdtemp()) / "words", length=77)
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=vae,
        text_encoder=text_encoder(tokenizer, **text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler(**SD_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def autoencoder(width: int, layers_per_block: int) -> AutoencoderKL:
    """Stable Diffusion's autoencoder at a width (128 is its own)."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        layers_per_block=layers_per_block,
        norm_num_groups=min(32, width),
        latent_channels=4,
    ).eval()


def miniature() -> StableDiffusionImg2ImgPipeline:
    torch.manual_seed(0)
    return stable_diffusion(UNet2DConditionModel(**SMALL_UNET), autoencoder(8, 1), **SMALL_TEXT)


def ours(pipeline: StableDiffusionImg2ImgPipeline, z: torch.Tensor, num_steps: int) -> int:
    """Decode centroids z (classes, K, C, H, W) as the stage does, from the class names on."""
    prior = stable_diffusion_prior(pipeline, PROMPTS[: len(z)], NEGATIVE)
    sample = partial(prior.sample, **SETTINGS, num_steps=num_steps)
    flat, labels = z.flatten(0, 1), torch.arange(len(z)).repeat_interleave(z.shape[1])
    vae, size = KLAutoencoder(pipeline.vae), batch_size(torch.device("cpu"), *z.shape[-2:])
    decoder = Decoder(vae, sample, 8 * z.shape[-1], size)
    return len(decoder(flat, labels, unit_seeds(len(flat), 0, "bench")))


def d4m(pipeline: StableDiffusionImg2ImgPipeline, z: torch.Tensor, num_steps: int) -> int:
    """Decode the same one by one."""
    for prompt, centroids in zip(PROMPTS, z, strict=False):
        for k in range(len(centroids)):
            pipeline(
                prompt=prompt,
                negative_prompt=NEGATIVE,
                image=centroids[k : k + 1],
                num_inference_steps=num_steps,
                output_type="np",
                **SETTINGS,
            )
    return z.shape[0] * z.shape[1]


def rate(work: Callable[[], int]) -> float:
    """Images per second of work that says how many it made."""
    start = time.perf_counter()
    return work() / (time.perf_counter() - start)


def against_d4m(num_rounds: int, num_steps: int, per_class: int, num_threads: int) -> dict[str, Any]:
    """The race on the miniature."""
    torch.set_num_threads(num_threads)
    pipeline = miniature()
    z = torch.randn(len(PROMPTS), per_class, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ways: dict[str, Callable[[], int]] = {
        "D4M's way": lambda: d4m(pipeline, z, num_steps),
        "ours": lambda: ours(pipeline, z, num_steps),
    }
    d4m(pipeline, z[:1, :1], num_steps)
    ours(pipeline, z[:1, :1], num_steps)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(num_rounds):
        for way, work in ways.items():
            rates[way].append(rate(work))
    table = Table(
        "way",
        "images/s, median",
        "lowest",
        "highest",
        title=f"{num_rounds} rounds of {z[:, :, 0, 0, 0].numel()} images",
    )
    for way, found in rates.items():
        table.add_row(way, f"{median(found):.2f}", f"{min(found):.2f}", f"{max(found):.2f}")
    console.print(table)
    ratios = [mine / theirs for mine, theirs in zip(rates["ours"], rates["D4M's way"], strict=True)]
    return {
        "speedup_over_d4m": round(median(ratios), 2),
        "speedup_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "threads": num_threads,
        "text_share_of_d4m": round(_text_seconds(pipeline) * median(rates["D4M's way"]), 4),
        "unet_parameters": sum(p.numel() for p in pipeline.unet.parameters()),
    }


def _text_seconds(pipeline: StableDiffusionImg2ImgPipeline) -> float:
    with torch.inference_mode():
        return 1 / rate(lambda: len([pipeline.encode_prompt("cat", "cpu", 1, True, NEGATIVE) for _ in range(20)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of which 0.7 are taken")
    parser.add_argument("--per-class", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    print(json.dumps(against_d4m(args.rounds, args.steps, args.per_class, args.threads)))


if __name__ == "__main__":
    main()
