"""A step of training on several cores, with the same bits on any number of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def single_threads(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads in each of which torch computes alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(num_threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def mean_loss(
    loss: Callable[..., torch.Tensor],
    batch: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor],
    pool: ThreadPoolExecutor,
    part: int,
) -> torch.Tensor:
    """The mean loss of a batch of rows, whose backward gives the parameters their gradients.

    loss(*rows) is the mean loss of some of the rows. On a CPU the pool's threads take `part` rows at a time, and what
    they find is added in the order of the rows: the same bits for any number of threads.
    """
    num_rows = len(batch[0])
    size = part if batch[0].device.type == "cpu" else num_rows

    def work(rows: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        value = loss(*rows) * (len(rows[0]) / num_rows)
        return value.detach(), torch.autograd.grad(value, parameters)

    parts = zip(*(torch.split(rows, size) for rows in batch), strict=True)
    values, gradients = zip(*pool.map(work, parts), strict=True)
    total = list(gradients[0])
    for more in gradients[1:]:
        torch._foreach_add_(total, more)
    value: torch.Tensor = _Known.apply(sum(values), total, *parameters)
    return value


class _Known(torch.autograd.Function):
    """A value whose gradients are there already."""

    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, gradients: list[torch.Tensor], *parameters: torch.Tensor
    ) -> torch.Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, factor: torch.Tensor) -> Any:
        return None, None, *torch._foreach_mul(ctx.gradients, factor)
