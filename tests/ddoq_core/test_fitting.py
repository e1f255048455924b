"""The training loop: cut anywhere, it goes on bit for bit."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from ddoq_core.fitting import LOOK_EVERY, by_epoch, fit, one_cycle, weight_decay_groups

NUM_STEPS = 24


class Cut(Exception):
    """A training is killed."""


class BufferCheckpoint:
    """Keeps every state as the bytes a file would hold, and kills the training after some steps."""

    def __init__(self, cuts: tuple[int, ...] = ()) -> None:
        self.bytes = b""
        self.cuts = set(cuts)
        self.reported: list[tuple[int, int]] = []

    def load(self) -> dict[str, Any] | None:
        return torch.load(io.BytesIO(self.bytes), weights_only=True) if self.bytes else None

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        buffer = io.BytesIO()
        torch.save(state(), buffer)
        self.bytes = buffer.getvalue()
        step = self.reported[-1][0]
        if step in self.cuts:
            self.cuts.remove(step)
            raise Cut

    def report(self, done: int, total: int, note: str) -> None:
        self.reported.append((done, total))


def train_once(
    checkpoint: BufferCheckpoint, learning_rate: float = 1e-2
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights, buffers, their average and the losses of a net with batch norm and dropout, in a process of its own."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
    torch.manual_seed(len(checkpoint.reported))  # a new process has another global state
    average = EMAModel(model.parameters(), decay=0.9)
    optimizer = torch.optim.AdamW(weight_decay_groups(model, 0.01), learning_rate)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        x = torch.randn(16, 4, generator=generator)
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    losses = fit(
        loss,
        NUM_STEPS,
        model=model,
        optimizer=optimizer,
        schedule=one_cycle(optimizer, learning_rate, NUM_STEPS),
        seed=7,
        checkpoint=checkpoint,
        extra={"average": average},
        after_step=lambda: average.step(model.parameters()),
    )
    shadows = {f"average.{k}": p for k, p in enumerate(average.shadow_params)}
    return {**model.state_dict(), **shadows}, losses


def train(checkpoint: BufferCheckpoint) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Run until it is not killed."""
    while True:
        try:
            return train_once(checkpoint)
        except Cut:
            continue


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[dict[str, torch.Tensor], list[float]]:
    return train(BufferCheckpoint())


@pytest.mark.parametrize("cuts", [*((step,) for step in range(1, NUM_STEPS + 1)), (1, 2, 3), (5, 17)])
def test_a_cut_training_equals_the_uninterrupted_one_bit_for_bit(
    uninterrupted: tuple[dict[str, torch.Tensor], list[float]], cuts: tuple[int, ...]
) -> None:
    state, losses = train(BufferCheckpoint(cuts))
    assert state.keys() == uninterrupted[0].keys()
    assert all(torch.equal(state[name], value) for name, value in uninterrupted[0].items())
    assert losses == uninterrupted[1]


class Elsewhere(EMAModel):
    """An average that comes back from a checkpoint where the model is not, as one on the CPU does on a GPU."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.shadow_params = [p.to("meta") for p in self.shadow_params]

    def to(self, *given: Any, **named: Any) -> None:
        self.moved_to = given[0]
        self.shadow_params = [torch.zeros(p.shape) for p in self.shadow_params]


def test_an_average_is_moved_to_where_the_model_is() -> None:
    model = nn.Linear(4, 1)
    checkpoint = BufferCheckpoint((3,))

    def run() -> Elsewhere:
        average = Elsewhere(model.parameters(), decay=0.9)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        fit(
            lambda step, generator: model(torch.randn(16, 4, generator=generator)).square().mean(),
            NUM_STEPS,
            model=model,
            optimizer=optimizer,
            schedule=one_cycle(optimizer, 1e-2, NUM_STEPS),
            seed=7,
            checkpoint=checkpoint,
            extra={"average": average},
            after_step=lambda: average.step(model.parameters()),
        )
        return average

    with pytest.raises(Cut):
        run()
    assert run().moved_to == torch.device("cpu")


def test_a_resumed_training_does_only_the_steps_that_are_left() -> None:
    checkpoint = BufferCheckpoint((20,))
    train(checkpoint)
    assert checkpoint.reported == [(step, NUM_STEPS) for step in range(1, NUM_STEPS + 1)]


def test_a_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    module = nn.Dropout(0.5)
    module.register_parameter("weight", weight)
    schedule = by_epoch(optimizer, "cosine", 1, 3)
    checkpoint = BufferCheckpoint()
    fit(
        lambda *_: module(weight).sum(),
        3,
        model=module,
        optimizer=optimizer,
        schedule=schedule,
        seed=0,
        checkpoint=checkpoint,
    )
    assert torch.equal(torch.rand(1), expected)


def test_a_training_that_diverges_says_where_and_is_not_saved() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule = by_epoch(optimizer, "cosine", 1, 5)
    checkpoint = BufferCheckpoint()

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        return model(torch.ones(1)).sum() * (math.nan if step == 3 else 1.0)

    with pytest.raises(FloatingPointError, match="loss is nan at step 4 of 5: lower the learning rate"):
        fit(loss, 5, model=model, optimizer=optimizer, schedule=schedule, seed=0, checkpoint=checkpoint)
    saved = checkpoint.load()
    assert saved is not None and saved["step"] == 3
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


class Unsaved(BufferCheckpoint):
    """A checkpoint for which it is never time to save."""

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        pass


@pytest.mark.parametrize(("bad", "noticed"), [(2, LOOK_EVERY), (LOOK_EVERY, 2 * LOOK_EVERY), (44, 45)])
def test_losses_are_looked_at_now_and_then_and_at_the_end(bad: int, noticed: int) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule, checkpoint = by_epoch(optimizer, "cosine", 1, 45), Unsaved()
    steps = []

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        steps.append(step)
        return model(torch.ones(1)).sum() * (math.inf if step == bad else 1.0)

    with pytest.raises(FloatingPointError, match=rf"loss is -?inf at step {bad + 1} of 45: lower the learning rate"):
        fit(loss, 45, model=model, optimizer=optimizer, schedule=schedule, seed=0, checkpoint=checkpoint)
    assert len(steps) == noticed


def test_a_training_does_not_wait_for_every_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule, waits = by_epoch(optimizer, "cosine", 1, 45), []
    for name in ("item", "tolist", "__float__"):
        read = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda x, read=read: waits.append(x) or read(x))

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        return model(torch.ones(1)).square().sum()

    fit(loss, 45, model=model, optimizer=optimizer, schedule=schedule, seed=0, checkpoint=Unsaved())
    assert [len(x) for x in waits] == [LOOK_EVERY, LOOK_EVERY, 5]


@pytest.mark.parametrize("num_steps", [1, 7, 20, 50])
def test_the_losses_are_means_over_twentieths_of_the_steps(num_steps: int) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    schedule = by_epoch(optimizer, "cosine", 1, num_steps)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        return 0 * model(torch.ones(1)).sum() + step

    losses = fit(
        loss, num_steps, model=model, optimizer=optimizer, schedule=schedule, seed=0, checkpoint=BufferCheckpoint()
    )
    parts = [[s for s in range(num_steps) if s * 20 // num_steps == k] for k in range(20)]
    assert losses == pytest.approx([sum(p) / len(p) for p in parts if p])


def rates(schedule: torch.optim.lr_scheduler.LRScheduler, num_steps: int) -> list[float]:
    found = []
    for _ in range(num_steps):
        found.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine", [1, (2 + math.sqrt(3)) / 4, 3 / 4, 1 / 2, 1 / 4, (2 - math.sqrt(3)) / 4]),
        ("half-cosine", [(1 + math.cos(math.pi * epoch / 12)) / 2 for epoch in range(6)]),
        ("steps", [1, 1, 1, 1, 0.2, 0.04]),
    ],
)
def test_the_rate_is_of_the_epoch(name: str, expected: list[float]) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.5)
    found = rates(by_epoch(optimizer, name, 6, 3), 18)
    assert found == pytest.approx([0.5 * rate for rate in expected for _ in range(3)])


def test_the_half_cosine_ends_at_half_the_rate() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 1.0)
    assert rates(by_epoch(optimizer, "half-cosine", 300, 1), 301)[-1] == pytest.approx(0.5)


def test_one_cycle_peaks_after_a_tenth_and_ends_at_nothing() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.5)
    found = rates(one_cycle(optimizer, 0.5, 100), 100)
    assert max(found) == pytest.approx(0.5, rel=1e-2) and found.index(max(found)) in (9, 10)
    assert found[0] == pytest.approx(0.5 / 25) and found[-1] < 1e-3


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    decayed, free = weight_decay_groups(model, 0.3)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3), (2, 4)]
    assert [tuple(p.shape) for p in free["params"]] == [(4,), (4,), (4,), (2,)]
    assert len(decayed["params"] + free["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("num_steps", [1, 2, 5, 8, 9, 10, 11, 14])
def test_one_cycle_goes_through_few_steps(num_steps: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.5)
    found = rates(one_cycle(optimizer, 0.5, num_steps), num_steps)
    assert all(0 <= rate <= 0.5 for rate in found) and max(found) > 0
