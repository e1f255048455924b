"""A step of training on several cores, with the same bits on any number of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

PART = 32  # rows of a batch that a thread takes at a time; of the prior's, smaller parts cost a tenth more and above


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
) -> torch.Tensor:
    """The mean loss of a batch of rows, whose backward gives the parameters their gradients.

    loss(*rows) is the mean loss of some of the rows. On a CPU the pool's threads work on parts of the batch, which are
    added in their order: the bits are those of the parts, whatever the number of threads.
    """
    num_rows = len(batch[0])
    size = PART if batch[0].device.type == "cpu" else num_rows

    def work(part: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        value = loss(*part) * (len(part[0]) / num_rows)
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
