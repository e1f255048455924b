"""Benchmark of the prior's training: `python -m tests.bench.prior` prints a table and, last, one line of JSON.

Latents per second of train_prior as the stage calls it (drawing, noise, network, loss, clipping, step, average) against
the same step's matrix products alone: those of every linear layer and of attention, forward and backward, on the same
cores and in the same precision. Rounds of both alternate in one process, after one round each that is not counted; a
round's first step is not counted either (with DDOQ_COMPILE=1 it compiles). `train_over_matmul` is the smallest median
over the cases.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from ddoq_core.decode.training import train_prior
from ddoq_core.decode.transformer import FlowTransformer
from ddoq_core.devices import best_device, multiplies_faster_in_bfloat16
from flows.catalogue import load_recipe
from tasks.inputs.sizes import Watch

NUM_CLASSES = 10
console = Console(width=150)


@dataclass(frozen=True)
class Case:
    """The prior of a recipe on latents of a shape."""

    name: str
    recipe: str
    channels: int
    side: int
    patch_size: int

    @property
    def settings(self) -> dict[str, Any]:
        """What train_prior takes."""
        own = load_recipe(self.recipe).prior.train.model_dump(exclude={"flip"})
        return {**own, "patch_size": self.patch_size}

    @property
    def tokens(self) -> int:
        return (self.side // self.patch_size) ** 2


CASES = (
    Case("cifar10, latents of TAEF2", "cifar10", 32, 4, 1),
    Case("cifar10, its own latents", "cifar10", 4, 8, 2),
    Case("folder", "folder", 8, 8, 2),
)


def train(case: Case, num_steps: int, num_threads: int) -> float:
    """Latents per second of the training."""
    rng, watch = np.random.default_rng(0), Watch()
    z = rng.normal(size=(4096, case.channels, case.side, case.side)).astype(np.float16)
    settings = {**case.settings, "num_steps": num_steps + 1}
    train_prior(z, np.arange(4096) % NUM_CLASSES, NUM_CLASSES, **settings, checkpoint=watch, num_threads=num_threads)
    return num_steps * settings["batch_size"] / (watch.times[-1] - watch.times[0])


class Products:
    """The matrix products of a step, on matrices that are there beforehand."""

    def __init__(self, case: Case) -> None:
        settings, device = case.settings, best_device()
        self.batch_size = batch_size = settings["batch_size"]
        sizes = {name: settings[name] for name in ("num_layers", "num_heads", "head_dim", "patch_size")}
        statistics = dict.fromkeys(("latents_mean", "latents_std"), (1.0,) * case.channels)
        model = FlowTransformer(case.channels, case.side, NUM_CLASSES, **sizes, **statistics).to(device)
        self.dtype = torch.bfloat16 if multiplies_faster_in_bfloat16(device) else torch.float32
        self.linear: list[list[torch.Tensor]] = []  # x (n, in), W (out, in), ∂y (n, out)
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(self._note)
        z = torch.randn(batch_size, case.channels, case.side, case.side, device=device)
        with torch.no_grad():
            model(z, torch.rand(batch_size, device=device), torch.zeros(batch_size, dtype=torch.long, device=device))
        shape = (settings["num_layers"], 4, batch_size, settings["num_heads"], case.tokens, settings["head_dim"])
        self.heads = torch.randn(shape, device=device).to(self.dtype)  # q, k, v and the output's gradient of each layer

    def _note(self, layer: nn.Linear, inputs: Any, output: torch.Tensor) -> None:
        parts = (inputs[0].flatten(0, -2), layer.weight.detach(), torch.randn_like(output).flatten(0, -2))
        self.linear.append([part.to(self.dtype) for part in parts])

    def step(self) -> None:
        """Forward and backward; the first layer's input needs no gradient."""
        for k, (x, weight, gradient) in enumerate(self.linear):
            _ = x @ weight.T
            _ = gradient.T @ x
            if k:
                _ = gradient @ weight
        for q, k, v, gradient in self.heads:
            p = q @ k.transpose(-2, -1)  # in place of its softmax
            _ = p @ v
            dp = gradient @ v.transpose(-2, -1)
            _ = p.transpose(-2, -1) @ gradient
            _ = dp @ k
            _ = dp.transpose(-2, -1) @ q

    def rate(self, num_steps: int) -> float:
        """Latents per second."""
        start = time.perf_counter()
        for _ in range(num_steps):
            self.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return num_steps * self.batch_size / (time.perf_counter() - start)


def race(case: Case, num_rounds: int, num_steps: int, num_threads: int) -> dict[str, Any]:
    """Median latents per second of both, and median, smallest and largest of the rounds' ratios."""
    products = Products(case)
    rounds = [(train(case, num_steps, num_threads), products.rate(num_steps)) for _ in range(num_rounds + 1)][1:]
    ratios = [loop / alone for loop, alone in rounds]
    loops, peers = zip(*rounds, strict=True)
    spread = {"ratio": median(ratios), "least": min(ratios), "most": max(ratios)}
    return {"train": median(loops), "products": median(peers), **spread, "precision": str(products.dtype)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of a round")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = "GPU" if torch.cuda.is_available() else f"CPU, {args.threads} thread(s)"
    table = Table("case", "precision", "training, latents/s", "products, latents/s", "ratio", "range", title=device)
    found: dict[str, dict[str, Any]] = {}
    for case in CASES:
        row = found[case.name] = race(case, args.rounds, args.steps, args.threads)
        numbers = (f"{row['train']:.0f}", f"{row['products']:.0f}", f"{row['ratio']:.3f}")
        table.add_row(case.name, row["precision"], *numbers, f"{row['least']:.3f} to {row['most']:.3f}")
    console.print(table)
    least = min(row["ratio"] for row in found.values())
    about = {"device": device, "rounds": args.rounds, "torch": torch.__version__}
    print(json.dumps({"train_over_matmul": least, **about, "cases": found}))


if __name__ == "__main__":
    main()
