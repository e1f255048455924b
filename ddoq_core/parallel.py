"""A step of training on several cores, with the same bits on any number of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

Map = Callable[..., Iterable[Any]]


@contextmanager
def single_threads(num_threads: int) -> Iterator[Map]:
    """What stands for `map`: threads in each of which torch computes alone, or the caller's own where it is one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if num_threads == 1:
            yield map
            return
        with ThreadPoolExecutor(num_threads) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(before)


def mean_loss(
    loss: Callable[..., torch.Tensor],
    batch: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor],
    each: Map,
    part: int,
) -> torch.Tensor:
    """The mean loss of a batch of rows, whose backward gives the parameters their gradients.

    loss(*rows) is the mean loss of some of the rows. On a CPU they are worked on `part` at a time, as `each` maps, and
    what is found is added in the order of the rows: the same bits for any number of threads.
    """
    num_rows = len(batch[0])
    size = part if batch[0].device.type == "cpu" else num_rows

    def work(rows: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        value = loss(*rows) * (len(rows[0]) / num_rows)
        return value.detach(), torch.autograd.grad(value, parameters)

    parts = zip(*(torch.split(rows, size) for rows in batch), strict=True)
    values, gradients = zip(*each(work, parts), strict=True)
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
