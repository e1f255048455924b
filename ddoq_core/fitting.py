"""One training loop for every model of the pipeline, that can be cut anywhere and goes on bit for bit.

The randomness of a step is seeded by (seed, step), so a resumed training sees what an uninterrupted one sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from ddoq_core.devices import algorithms_tried
from ddoq_core.seeds import derive_seed


class Checkpoint(Protocol):
    """Where the state of a training outlives its process. Decides itself when to save, and shows how far it is."""

    def load(self) -> dict[str, Any] | None:
        """The state last saved, or None."""

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save the state if it is time to."""

    def report(self, done: int, total: int, note: str) -> None:
        """Show people that `done` of `total` steps are done."""


class Stateful(Protocol):
    """A model, optimiser, schedule or average."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


Loss = Callable[[int, torch.Generator], torch.Tensor]
LOOK_EVERY = 20  # steps: to look at a loss is to wait for the GPU


def fit(
    loss: Loss,
    num_steps: int,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    seed: int,
    checkpoint: Checkpoint,
    extra: dict[str, Stateful] | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> list[float]:
    """Minimise loss(step, generator) over `num_steps` steps. Returns the mean loss of each twentieth of them.

    Raises FloatingPointError for a loss that is not finite, at most LOOK_EVERY steps later and before anything of it is
    saved.
    """
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "schedule": schedule, **(extra or {})}
    saved = checkpoint.load()
    losses = Losses(num_steps)
    first = 0
    if saved is not None:
        first, losses.sums = saved["step"], saved["losses"]
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        for part in (extra or {}).values():
            if move := getattr(part, "to", None):  # an average comes back as it was saved, on the CPU
                move(next(model.parameters()).device)

    def state(step: int) -> dict[str, Any]:
        losses.look()
        return {"step": step, "losses": losses.sums, **{name: part.state_dict() for name, part in parts.items()}}

    generator = torch.Generator()
    with torch.random.fork_rng(devices=[]), algorithms_tried():
        for step in range(first, num_steps):
            torch.manual_seed(derive_seed(seed, "model", step))  # for dropout, which takes no generator
            value = loss(step, seeded(generator, seed, step))
            losses.add(step, value)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            after_step()
            checkpoint.report(step + 1, num_steps, losses.note)
            checkpoint.save(partial(state, step + 1))
    return losses.means()


class Losses:
    """Sums of a training's losses over twentieths of its steps, which a saved state holds whatever their number. They
    stay on the device until they are looked at."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps, self.sums, self.note = num_steps, [0.0] * 20, ""
        self._waiting: dict[int, torch.Tensor] = {}

    def add(self, step: int, value: torch.Tensor) -> None:
        """Take a step's loss. Raises FloatingPointError when it is time to look and one is not finite."""
        self._waiting[step] = value.detach()
        if len(self._waiting) == LOOK_EVERY:
            self.look()

    def look(self) -> None:
        """Add what has come since. Raises FloatingPointError for a loss that is not finite, with its step."""
        if not self._waiting:
            return
        amounts = torch.stack(list(self._waiting.values())).tolist()
        for step, amount in zip(self._waiting, amounts, strict=True):
            if not math.isfinite(amount):
                which = f"step {step + 1} of {self.num_steps}"
                raise FloatingPointError(f"loss is {amount} at {which}: lower the learning rate")
            self.sums[step * 20 // self.num_steps] += amount  # step by step: a cut training adds in the same order
        self.note = f"loss {amounts[-1]:.4f}"
        self._waiting.clear()

    def means(self) -> list[float]:
        """The mean loss of each twentieth."""
        self.look()
        counts = [0] * 20
        for step in range(self.num_steps):
            counts[step * 20 // self.num_steps] += 1
        return [total / count for total, count in zip(self.sums, counts, strict=True) if count]


def seeded(generator: torch.Generator, seed: int, step: int) -> torch.Generator:
    """The generator as a training with this seed gives it to a step's loss."""
    return generator.manual_seed(derive_seed(seed, step))


def one_cycle(optimizer: torch.optim.Optimizer, peak: float, num_steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Warm up to the peak rate over a tenth of the steps, then anneal to 0 by a cosine (arXiv 1708.07120)."""
    total = num_steps + 1
    warm = max(
        0.1, 1.5 / total
    )  # of ten steps torch would divide by the none that a tenth leaves between first and last
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=total, pct_start=warm, cycle_momentum=False)


# η_e/η_0 of epoch e of E
RATES: dict[str, Callable[[int, int], float]] = {
    "cosine": lambda epoch, num_epochs: (1 + math.cos(math.pi * epoch / num_epochs)) / 2,
    "half-cosine": lambda epoch, num_epochs: (1 + math.cos(math.pi * epoch / num_epochs / 2)) / 2,
    "steps": lambda epoch, num_epochs: 0.2 ** ((epoch >= 2 * num_epochs // 3) + (epoch >= 5 * num_epochs // 6)),
}


def by_epoch(
    optimizer: torch.optim.Optimizer, name: str, num_epochs: int, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The rate of an epoch as a share of the full one.

    name  "cosine": from 1 to 0 (SRe2L, arXiv 2306.13092); "half-cosine": the first half of it, from 1 to 1/2 (RDED,
          arXiv 2312.03526); "steps": times 0.2 after 2/3 and after 5/6 of the epochs (IDC, arXiv 2205.14959)
    """
    rate = RATES[name]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step // steps_per_epoch, num_epochs))


def weight_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with weight decay on tensors of more than one dimension only."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
