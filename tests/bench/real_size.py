"""The published sizes on a CPU: `python -m tests.bench.real_size` prints a table and, last, one line of JSON.

Pipelines of the published configurations of Stable Diffusion v1.5 and DiT-XL/2-256, with random weights, are written as
float32 safetensors folders, loaded by the code that loads the real ones in a fresh process, and make two pictures in
two steps. Needs 10 GiB of disk below the folder for temporary files, and 10 GiB of memory; all is deleted afterwards.

loaded_over_weights  peak memory of that process when the models are loaded, less that of its libraries, over the bytes
                     of the weights
peak_over_weights    the same when the pictures are made, with all that lies between a model's layers
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

CLASSES = ("n01440764", "n02102040")
console = Console(width=140)


def save_stable_diffusion(folder: Path) -> None:
    """Stable Diffusion v1.5: diffusers' defaults are its UNet's configuration."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from tests.bench.decode import autoencoder
    from tests.pipelines import SD_SCHEDULE, tiny_tokenizer

    words = tiny_tokenizer(folder.with_name("words"), length=77)  # its vocabulary cannot be had here
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    StableDiffusionPipeline(
        vae=autoencoder(128, 2),
        text_encoder=CLIPTextModel(text),
        tokenizer=words,
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        scheduler=PNDMScheduler(**SD_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def save_dit(folder: Path) -> None:
    """DiT-XL/2-256."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    from tests.bench.decode import autoencoder

    transformer = DiTTransformer2DModel(num_layers=28, num_attention_heads=16, attention_head_dim=72, out_channels=8)
    DiTPipeline(transformer, autoencoder(128, 2), DDIMScheduler(clip_sample=False)).save_pretrained(folder)


MODELS: dict[str, tuple[Callable[[Path], None], str, int]] = {  # how it is saved, its kind, the side of its latents
    "Stable Diffusion v1.5": (save_stable_diffusion, "stable-diffusion", 64),
    "DiT-XL/2-256": (save_dit, "dit", 32),
}


def use(folder: Path, kind: str, side: int) -> dict[str, float]:
    """Load a pipeline's folder as the stages do, and decode two centroids in two steps."""
    import torch
    from diffusers import DiTPipeline, StableDiffusionPipeline
    from transformers import CLIPTextModel

    from ddoq_core.decode.decoder import Decoder
    from ddoq_core.encode.autoencoder import load_autoencoder
    from tasks.inputs.models import load_given_prior

    assert all((DiTPipeline, StableDiffusionPipeline, CLIPTextModel)), "imported, as they count as libraries"
    libraries, start = memory("VmRSS"), time.perf_counter()
    prior, model = load_given_prior(kind, str(folder), CLASSES), load_autoencoder(str(folder), "vae")
    loaded, loading = memory("VmHWM") - libraries, time.perf_counter() - start
    start = time.perf_counter()
    sample = partial(prior.sample, strength=1.0, guidance_scale=4.0, num_steps=2)
    pictures = Decoder(model, sample, 8 * side, batch_size=2)(torch.zeros(2, 4, side, side), torch.arange(2), [0, 1])
    assert pictures.shape == (2, 8 * side, 8 * side, 3)
    return {
        "loading_seconds": loading,
        "seconds": time.perf_counter() - start,
        "loaded_bytes": loaded,
        "peak_bytes": memory("VmHWM") - libraries,
    }


def memory(what: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    [kib] = re.findall(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) << 10


def in_a_process(job: Callable[..., Any], *arguments: Any) -> Any:
    """What a job returns, done in a process that ends with it."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(job, *arguments).result()


def parameters(folder: Path) -> dict[str, int]:
    """Parameters of each of a pipeline's networks, all float32."""
    from safetensors import safe_open

    found: dict[str, int] = {}
    for file in sorted(folder.glob("*/*.safetensors")):
        with safe_open(file, "pt") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118  no mapping
        found[file.parent.name] = found.get(file.parent.name, 0) + sum(map(math.prod, shapes))
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    table = Table("model", "millions of parameters", "loaded in", "two pictures in", "memory loaded", "with pictures")
    result = {}
    for name, (save, kind, side) in MODELS.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "pipeline"
            in_a_process(save, folder)
            counts = parameters(folder)
            num_bytes = 4 * sum(counts.values())
            told = in_a_process(use, folder, kind, side)
        loaded, peak = told["loaded_bytes"] / num_bytes, told["peak_bytes"] / num_bytes
        millions = ", ".join(f"{part} {count / 1e6:.1f}" for part, count in counts.items())
        seconds = [f"{told[key]:.0f} s" for key in ("loading_seconds", "seconds")]
        table.add_row(name, millions, *seconds, f"{loaded:.2f} × weights", f"{peak:.2f} × weights")
        result[name] = {**counts, **told, "loaded_over_weights": loaded, "peak_over_weights": peak}
    console.print(table)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
