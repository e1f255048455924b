"""What a GPU makes of ImageNet's recipes: `python -m tests.bench.gpu` prints a line for each part and, last, JSON.

Encoding, batched k-means and decoding by the settings of `imagenet` (Stable Diffusion v1.5, 512 px) and `imagenet-dit`
(DiT-XL/2-256), and a student's training with its teacher, on models of the published sizes with random weights and on
images that are ready in memory. Of each: images per second, the share of the rate at which this very card multiplies
large bfloat16 matrices (k-means and the autoencoder's decoder compute in float32), and the GPU memory it took. Then
what ImageNet-1K would take at these rates, without reading, evaluating and training a teacher, and three checks:

inertia_over_single    of batched k-means over that of one class after the other
resumed, repeated      how far a student that was killed and resumed is from one that was not, and a second one from the
                       first: ‖θ − θ₁‖ / ‖θ₁‖, which a GPU's order of sums leaves above 0
resumed_steps          that the resumed one made, of eight
fitted_batch, of       latents that were decoded at once where memory was short, which it is on a GPU, and that were
                       asked for
picture_difference     of these pictures from those of a batch that fits, at most, in levels of 255

It is meant to take less than 8 minutes on an H100. --tiny takes the same way at sizes that suit a CPU; hours and
dollars mean nothing then.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel, UNet2DConditionModel
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from ddoq_core.cluster.batched import quantize_batch
from ddoq_core.decode.decoder import Decoder
from ddoq_core.decode.dit import dit_prior
from ddoq_core.decode.noise import unit_seeds
from ddoq_core.decode.prior import Prior
from ddoq_core.decode.stable_diffusion import stable_diffusion_prior
from ddoq_core.devices import best_device
from ddoq_core.encode.autoencoder import Autoencoder, KLAutoencoder, encode_batches
from ddoq_core.encode.precision import fast_dtype
from ddoq_core.memory import batch_size
from ddoq_core.train.networks import build_classifier
from flows.catalogue import load_recipe
from tasks.recipe.protocols import protocol_of
from tasks.recipe.recipe import Recipe
from tests.bench.decode import NEGATIVE, PROMPTS, SMALL_TEXT, SMALL_UNET, autoencoder, stable_diffusion
from tests.bench.gpu_checks import NUM_CLASSES, Training, halving, inertias, resuming
from tests.bench.latents import low_rank
from tests.bench.train import Silent

RECIPES = ("imagenet", "imagenet-dit")
NUM_IMAGES = 1_281_167  # of ImageNet-1K, to train on
IPCS = (10, 50)
EPOCHS = 8  # of the training that is timed
PRODUCTS = 50
console = Console(width=140)


@dataclass(frozen=True)
class Sizes:
    """What is measured: the models, what the recipes have otherwise, and how much each line works on."""

    unet: dict[str, Any]
    text: dict[str, int]
    dit: dict[str, int]
    vae: tuple[int, int]  # width, layers per block
    changes: dict[str, list[str]]  # settings of each recipe
    side: int  # of the matrices that are multiplied
    encoded: int  # batches
    classes: tuple[int, int]  # that are quantised, and images of each
    decoded: int  # at most
    trained: int  # pictures of an epoch
    short: tuple[int, int, int]  # latents, their side, and bytes of a GPU to decode them in


PUBLISHED = Sizes(
    unet={"sample_size": 64, "cross_attention_dim": 768},
    text={"width": 768, "num_layers": 12, "num_heads": 12},
    dit={"num_layers": 28, "num_attention_heads": 16, "attention_head_dim": 72, "out_channels": 8},
    vae=(128, 2),
    changes={name: [] for name in RECIPES},
    side=8192,
    encoded=8,
    classes=(12, 1300),  # as many as the stage quantises at once
    decoded=1024,
    trained=4096,
    short=(64, 32, 2 << 30),
)
TINY = Sizes(
    unet=SMALL_UNET,
    text=SMALL_TEXT,
    dit={"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8, "out_channels": 8, "sample_size": 4},
    vae=(8, 1),
    changes={
        name: [f"images.size_px={px}", "images.train_px=32", "decode.num_steps=8"]
        for name, px in zip(RECIPES, (64, 32), strict=True)
    },
    side=256,
    encoded=2,
    classes=(2, 100),
    decoded=16,
    trained=16,
    short=(16, 8, 0),
)


@dataclass(frozen=True)
class Line:
    """Work on the first so many of `num` images; that on `few` of them is enough to count its operations."""

    name: str
    num: int
    few: int
    work: Callable[[int], object]


def measured(line: Line, peak: float) -> dict[str, float]:
    """A line's figures, which are printed; `peak` is the card's floating-point operations per second."""
    with FlopCounterMode(display=False) as counter:
        line.work(line.few)
    line.work(line.num)  # warms up
    if on_gpu():
        torch.cuda.reset_peak_memory_stats()
    rate = line.num / seconds_of(lambda: line.work(line.num))
    found = {
        "images_per_second": rate,
        "share_of_peak": rate * counter.get_total_flops() / line.few / peak,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu() else 0.0,
    }
    share = f"{found['share_of_peak']:7.1%} of peak"
    console.print(f"{line.name:<32}{rate:12.2f} images/s {share} {found['peak_gib']:8.1f} GiB", highlight=False)
    return found


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of work, until a GPU has done all of it."""
    synchronize = torch.cuda.synchronize if on_gpu() else lambda: None
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def on_gpu() -> bool:
    return best_device().type == "cuda"


def measured_peak(side: int) -> float:
    """Floating-point operations per second of products of bfloat16 matrices."""
    a, b = torch.randn(2, side, side, device=best_device(), dtype=torch.bfloat16)

    def products() -> None:
        for _ in range(PRODUCTS):
            a @ b

    products()  # warms up
    return PRODUCTS * 2 * side**3 / seconds_of(products)


def lines_of(name: str, sizes: Sizes) -> Iterator[Line]:
    """Encoding, quantising and decoding by a recipe, each line made when the one before is done."""
    torch.manual_seed(0)
    recipe = load_recipe(name, settings=sizes.changes[name])
    vae = autoencoder(*sizes.vae)
    model = KLAutoencoder(vae)
    shape = model.latent_shape(recipe.images.size_px)
    yield encoding(name, recipe, model.at_precision(fast_dtype(model.device)).compiled(), sizes)
    yield from quantising(name, shape, sizes)
    if recipe.prior.kind == "stable-diffusion":
        pipeline = stable_diffusion(UNet2DConditionModel(**sizes.unet), vae, **sizes.text)
        prior = stable_diffusion_prior(pipeline, PROMPTS, NEGATIVE)
    else:
        known = range(len(PROMPTS))
        prior = dit_prior(DiTTransformer2DModel(**sizes.dit), DDIMScheduler(clip_sample=False), known)
    yield decoding(name, recipe, model, prior, shape, sizes)


def encoding(name: str, recipe: Recipe, model: Autoencoder, sizes: Sizes) -> Line:
    size_px = recipe.images.size_px
    size = model.batch_size(size_px)
    images = np.random.default_rng(0).integers(0, 256, (sizes.encoded * size, size_px, size_px, 3), dtype=np.uint8)
    sample = (0, "bench") if recipe.encode.posterior == "sample" else None

    def work(num: int) -> None:
        batches = (images[k : min(k + size, num)] for k in range(0, num, size))
        for _ in encode_batches(model, batches, sample=sample):
            pass

    return Line(f"{name}, encode", len(images), 1, work)


def quantising(name: str, shape: tuple[int, ...], sizes: Sizes) -> Iterator[Line]:
    num_classes, each = sizes.classes
    classes = [low_rank(each, int(np.prod(shape)), seed=c) for c in range(num_classes)]

    def work(num_points: int, num: int) -> None:
        chosen = classes[: num // each]
        quantize_batch(chosen, num_points, seeds=range(len(chosen)))

    for ipc in IPCS:
        yield Line(f"{name}, cluster, K = {ipc}", num_classes * each, each, partial(work, ipc))


def decoding(name: str, recipe: Recipe, model: Autoencoder, prior: Prior, shape: tuple[int, ...], sizes: Sizes) -> Line:
    size = batch_size(best_device(), *shape[1:])  # as the stage has it
    sample = partial(prior.sample, **recipe.decode.sampling)
    decoder = Decoder(model, sample, recipe.images.for_training.size_px, size)
    num = min(size, sizes.decoded)
    z, labels, seeds = torch.randn(num, *shape), torch.arange(num) % len(prior.conditions), unit_seeds(num, 0, "bench")
    return Line(f"{name}, decode", num, 1, lambda n: decoder(z[:n], labels[:n], seeds[:n]))


def training(recipe: Recipe, num: int) -> Line:
    training = Training(recipe, num)
    student = build_classifier(training.spec)

    def work(seen: int) -> None:
        training.fit(student, seen // EPOCHS, Silent(), num_epochs=EPOCHS)

    return Line("train with teacher", EPOCHS * num, EPOCHS * 2, work)


def hours_of(rates: dict[str, float], recipe: str, ipc: int, num_epochs: int) -> dict[str, float]:
    """Hours that ImageNet-1K takes on one GPU, stage by stage: one method, one seed, one student."""
    seen = {
        f"{recipe}, encode": NUM_IMAGES,
        f"{recipe}, cluster, K = {ipc}": NUM_IMAGES,
        f"{recipe}, decode": NUM_CLASSES * ipc,
        "train with teacher": NUM_CLASSES * ipc * num_epochs,
    }
    stages = ("encode", "cluster", "decode", "train")
    return {stage: num / rates[line] / 3600 for stage, (line, num) in zip(stages, seen.items(), strict=True)}


def show_costs(rates: dict[str, float], num_epochs: int, dollars_per_hour: float) -> dict[str, dict[str, float]]:
    """A table of what ImageNet-1K takes."""
    table = Table("recipe", "encode h", "cluster h", "decode h", "train h", "all h", "dollars")
    table.title = f"ImageNet-1K at these rates, at {dollars_per_hour} dollars an hour"
    found: dict[str, dict[str, float]] = {}
    for recipe in RECIPES:
        for ipc in IPCS:
            hours = hours_of(rates, recipe, ipc, num_epochs)
            total = sum(hours.values())
            costs = {**hours, "all": total, "dollars": total * dollars_per_hour}
            found[f"{recipe}, {ipc} a class"] = costs
            table.add_row(f"{recipe}, {ipc} a class", *(f"{value:.2f}" for value in costs.values()))
    console.print(table)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="the same at sizes that suit a CPU")
    parser.add_argument("--dollars-per-hour", type=float, default=3.0, help="what the card is rented for")
    args = parser.parse_args()
    if not (args.tiny or on_gpu()):
        raise SystemExit("needs a CUDA device, and torch sees none here: --tiny is for a CPU")
    start, sizes = time.perf_counter(), TINY if args.tiny else PUBLISHED
    device = torch.cuda.get_device_name() if on_gpu() else "CPU"
    peak = measured_peak(sizes.side)
    console.print(f"{device}: {peak / 1e12:.1f} TFLOP/s in products of bfloat16 matrices of {sizes.side}²")
    recipe = load_recipe(RECIPES[0], settings=sizes.changes[RECIPES[0]])
    lines = {line.name: measured(line, peak) for name in RECIPES for line in lines_of(name, sizes)}
    lines["train with teacher"] = measured(training(recipe, sizes.trained), peak)
    model = KLAutoencoder(autoencoder(*sizes.vae))
    checks = {**inertias(sizes.classes[1], IPCS[0]), **resuming(recipe), **halving(model, *sizes.short)}
    console.print(checks)
    rates = {name: line["images_per_second"] for name, line in lines.items()}
    costs = show_costs(rates, protocol_of(recipe, "ddoq", NUM_CLASSES).num_epochs, args.dollars_per_hour)
    told = {"device": device, "tiny": args.tiny, "peak_flops": peak, "lines": lines, "checks": checks, "costs": costs}
    print(json.dumps({**told, "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
