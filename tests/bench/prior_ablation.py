"""What each choice in the prior's training is worth: `python -m tests.bench.prior_ablation --minutes 30 --root FOLDER`
prints a table and, last, one line of JSON.

The diffusion transformer that the recipe trained before, today's prior, and today's without one choice each, all of
which have the same core-minutes on the latents of CIFAR-10 (TAEF2's). Columns are those of the stage sample: pictures
drawn from noise at the recipe's guidance, against held-out images in the teacher's features. The stages below are made
as in a run, in FOLDER, and kept there; a row that FOLDER/ablation.json has is not made again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DiTTransformer2DModel
from diffusers.training_utils import EMAModel
from rich.console import Console
from rich.table import Table

from ddoq_core.decode import training, transformer
from ddoq_core.decode.decoder import Decoder
from ddoq_core.decode.dit import dit_prior
from ddoq_core.decode.flow import flow_prior
from ddoq_core.decode.noise import unit_seeds
from ddoq_core.fitting import fit, one_cycle
from flows.catalogue import load_recipe
from storage.artifact import Artifact
from tasks import autoencoder, encode, shard, teacher, view
from tasks.inputs.models import load_autoencoder, load_classifier
from tasks.inputs.sizes import Watch
from tasks.inputs.stores import indexed, latents_of
from tasks.recipe.recipe import Recipe
from tasks.sample import MOST_REAL, nearness, real_images
from tests.tasks.conftest import complete

PER_CLASS = 50
PROBE_STEPS = 6
STEPS_AT_LEAST = 20
Data = tuple[np.ndarray, np.ndarray]


def _constant_rate(optimizer: torch.optim.Optimizer, peak: float, num_steps: int) -> Any:
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _attention_as_it_comes(block: transformer.Block, x: torch.Tensor) -> torch.Tensor:
    q, k, v = block.qkv(x).unflatten(-1, block.heads).permute(2, 0, 3, 1, 4)
    return block.out(transformer.attention(q * block.scale, k, v).transpose(1, 2).flatten(2))


def _one_scale(z: np.ndarray) -> Data:
    return np.zeros(z.shape[1], np.float32), np.full(z.shape[1], z.std(dtype=np.float64), np.float32)


WITHOUT: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "today's": nullcontext,
    "without logit-normal times": lambda: patch.object(
        training, "logit_normal", lambda n, g: torch.rand(n, generator=g)
    ),
    "without zeroed layers": lambda: patch.object(transformer, "_zeroed", lambda layer: layer),
    "without normalised queries": lambda: patch.object(transformer.Block, "_attention", _attention_as_it_comes),
    "without normalised channels": lambda: patch.object(training, "channel_statistics", _one_scale),
    "without clipping": lambda: patch.object(training, "MAX_NORM", math.inf),
    "without an average": lambda: patch.object(training, "AVERAGED", 1e-9),
    "without warm-up and cosine": lambda: patch.object(training, "one_cycle", _constant_rate),
    "without bfloat16": lambda: patch.object(training, "multiplies_faster_in_bfloat16", lambda device: False),
}


class Ablation:
    """The stages that all rows share, and what a row is."""

    def __init__(self, recipe: Recipe, root: Path, minutes: float, threads: int) -> None:
        self.recipe, self.seconds, self.threads = recipe, 60 * minutes, threads
        self.shard, self.index = indexed(complete(shard.plan(recipe, root)))
        self.model = complete(autoencoder.plan(recipe, self.shard))
        stores = [complete(encode.plan(recipe, self.shard, self.model, mirrored=m)) for m in (False, True)]
        self.plain, self.mirrored = (self._latents(artifact) for artifact in stores)
        seen = complete(view.plan(recipe, self.shard, "train"))
        self.teacher = load_classifier(complete(teacher.plan(recipe, self.shard, seen)))
        images = recipe.images.for_training
        self.held_out, _ = real_images(self.shard, self.index, "val", MOST_REAL, images)
        self.training, self.own = real_images(self.shard, self.index, "train", PER_CLASS, images)

    def _latents(self, artifact: Artifact) -> Data:
        parts = [latents_of(artifact).read_class(name) for name in self.index.classes]
        return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(z) for z in parts])

    def rows(self) -> dict[str, Callable[[], dict[str, float]]]:
        """What makes each row, by its name."""
        both = tuple(np.concatenate(pair) for pair in zip(self.plain, self.mirrored, strict=True))
        return {
            "training images": lambda: nearness(self.teacher, self.held_out, self.training, self.own),
            "the diffusion of before": self.diffusion,
            **{name: partial(self.flow, both, without) for name, without in WITHOUT.items()},
            "without mirrored images": partial(self.flow, self.plain, nullcontext),
            "patches of 2": partial(self.flow, both, nullcontext, patch_size=2),
        }

    def flow(self, data: Data, without: Callable[[], Any], **changes: Any) -> dict[str, float]:
        settings = {**self.recipe.prior.train.model_dump(exclude={"flip"}), "patch_size": 1, **changes}
        with without():

            def train(num_steps: int, watch: Watch, threads: int) -> Any:
                own = {**settings, "num_steps": num_steps, "checkpoint": watch, "num_threads": threads}
                return training.train_prior(*data, len(self.index.classes), **own)[0]

            num_steps = self.steps(lambda watch: train(PROBE_STEPS, watch, 1))
            prior = flow_prior(train(num_steps, Watch(), self.threads))
            return {"steps": num_steps, **self.measured(prior)}

    def diffusion(self) -> dict[str, float]:
        num_steps = self.steps(lambda watch: train_diffusion(*self.plain, PROBE_STEPS, watch))
        model, scheduler = train_diffusion(*self.plain, num_steps, Watch())
        return {"steps": num_steps, **self.measured(dit_prior(model, scheduler, range(len(self.index.classes))))}

    def steps(self, train: Callable[[Watch], Any]) -> int:
        """As many as fit into the core-minutes, by the seconds of a core that one takes."""
        seconds: list[float] = []
        watch = Watch()
        watch.report = lambda done, total, note: seconds.append(time.process_time())  # type: ignore[method-assign]
        train(watch)
        return max(STEPS_AT_LEAST, int(self.seconds / ((seconds[-1] - seconds[0]) / (PROBE_STEPS - 1))))

    def measured(self, prior: Any) -> dict[str, float]:
        labels = np.repeat(np.arange(len(self.index.classes)), PER_CLASS)
        settings = {**self.recipe.decode.sampling, "strength": 1.0}
        size_px = self.recipe.images.for_training.size_px
        decoder = Decoder(load_autoencoder(self.model), partial(prior.sample, **settings), size_px, 256)
        seeds = unit_seeds(len(labels), 0, "ablation")
        pictures = decoder(torch.zeros(len(labels), *self.plain[0].shape[1:]), torch.from_numpy(labels), seeds)
        return nearness(self.teacher, self.held_out, pictures, labels)


def train_diffusion(z: np.ndarray, labels: np.ndarray, num_steps: int, watch: Watch) -> Any:
    """What the recipe trained before: diffusers' DiT of 4 layers of 128 that predicts the noise, in float32."""
    latents, y, num_classes = torch.from_numpy(z).float(), torch.from_numpy(labels), int(labels.max()) + 1
    torch.manual_seed(0)
    shape: dict[str, Any] = {"in_channels": z.shape[1], "out_channels": z.shape[1], "sample_size": z.shape[2]}
    size = {"num_attention_heads": 4, "attention_head_dim": 32, "num_layers": 4, "patch_size": 1}
    model = DiTTransformer2DModel(**shape, **size, num_embeds_ada_norm=num_classes).eval()
    betas: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = DDIMScheduler(**betas, clip_sample=False)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.0, betas=(0.9, 0.99))
    average = EMAModel(model.parameters(), decay=0.999)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(latents), (64,), generator=generator)
        t = torch.randint(1000, (64,), generator=generator)
        noise = torch.randn(latents[chosen].shape, generator=generator)
        condition = torch.where(torch.rand(64, generator=generator) < 0.1, num_classes, y[chosen])
        noised = scheduler.add_noise(latents[chosen], noise, t)
        return F.mse_loss(model(noised, timestep=t, class_labels=condition).sample, noise)

    fit(
        loss,
        num_steps,
        model=model,
        optimizer=optimizer,
        schedule=one_cycle(optimizer, 2e-3, num_steps),
        seed=0,
        checkpoint=watch,
        extra={"average": average},
        after_step=lambda: average.step(model.parameters()),
    )
    average.copy_to(model.parameters())
    return model.requires_grad_(False), scheduler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="of one core, for each row")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], help="settings of the recipe, as `ddoq run` takes them")
    parser.add_argument("--rows", nargs="*", help="these alone")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    args = parser.parse_args()
    recipe = load_recipe("cifar10", settings=args.set)
    ablation = Ablation(recipe, args.root.absolute(), args.minutes, args.threads)
    kept = args.root / "ablation.json"
    found: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    for name, make in ablation.rows().items():
        key = f"{name}, {args.minutes:g} minutes"
        if key not in found and (not args.rows or name in args.rows):
            found[key] = make()
            kept.write_text(json.dumps(found, indent=1))
            print(key, found[key], flush=True)
    table = Table("row", "steps", "recognised %", "Fréchet distance", "precision", "recall")
    for name, row in found.items():
        numbers = (
            f"{100 * row['recognised']:.1f}",
            f"{row['frechet']:.3g}",
            f"{row['precision']:.2f}",
            f"{row['recall']:.2f}",
        )
        table.add_row(name, str(row.get("steps", "")), *numbers)
    Console(width=120).print(table)
    print(json.dumps({"rows": found, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
