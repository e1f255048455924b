"""A step in parts: the gradients are those of the whole batch, and the same bits on any number of cores."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from ddoq_core.parallel import mean_loss, single_threads

PART, NUM_ROWS = 32, 101
X, Y = (torch.randn(NUM_ROWS, n, generator=torch.Generator().manual_seed(n)) for n in (64, 8))


def step(num_threads: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 8))
    parameters = list(model.parameters())
    with single_threads(num_threads) as each:
        value = mean_loss(lambda x, y: (model(x) - y).square().mean(), (X, Y), parameters, each, PART)
        (2 * value).backward()
    return value.detach(), [p.grad for p in parameters]


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    value, gradients = step(1)
    for num_threads in (2, 3, 8):
        other, theirs = step(num_threads)
        assert torch.equal(other, value)
        assert all(torch.equal(a, b) for a, b in zip(gradients, theirs, strict=True))


def test_the_gradients_are_those_of_the_whole_batch() -> None:
    value, gradients = step(2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 8))
    expected = (model(X) - Y).square().mean()
    (2 * expected).backward()
    torch.testing.assert_close(value, expected.detach())
    for found, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)


def test_parts_are_worked_on_at_once() -> None:
    """A barrier that one thread alone would wait at forever."""
    barrier, weight = threading.Barrier(2, timeout=60), torch.ones(1, requires_grad=True)

    def loss(x: torch.Tensor) -> torch.Tensor:
        barrier.wait()
        assert torch.get_num_threads() == 1
        return (weight * x).mean()

    with single_threads(2) as each:
        value = mean_loss(loss, [torch.ones(2 * PART, 1)], [weight], each, PART)
    assert value.item() == pytest.approx(1.0)
