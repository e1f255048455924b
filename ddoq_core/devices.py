"""Where models run, and in which precision."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

import torch


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU; DDOQ_DEVICE names another, e.g. cpu or cuda:1."""
    return torch.device(os.environ.get("DDOQ_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where it is faster: on a GPU, and on a CPU that multiplies faster in it; elsewhere nothing changes."""
    enabled = device.type == "cuda" or multiplies_faster_in_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@contextmanager
def algorithms_tried() -> Iterator[None]:
    """Within it cuDNN tries its algorithms and keeps the fastest, which pays where all batches are of one size, and
    gives other last bits from run to run. (TF32 it takes anyway.)"""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def memory_format(device: torch.device) -> torch.memory_format:
    """How convolutions' weights lie: channels last on a GPU, whose tensor cores read them so."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def sent(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on the device. From the CPU to a GPU it goes without waiting for what the GPU still has to do."""
    return (
        x.pin_memory().to(device, non_blocking=True)
        if (x.device.type, device.type) == ("cpu", "cuda")
        else x.to(device)
    )


@lru_cache
def multiplies_faster_in_bfloat16(device: torch.device) -> bool:
    """Whether matrices multiply in bfloat16 more than 1.4 times as fast as in float32, measured once a process: twice
    and more where the processor can, slower where it cannot."""
    pair = [torch.ones(512, 512, device=device, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    seconds = [[_seconds_of_product(matrix) for matrix in pair] for _ in range(12)]  # in turns, on a machine at work
    slow, fast = (min(column) for column in zip(*seconds, strict=True))
    return slow > 1.4 * fast


def _seconds_of_product(matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    (matrix @ matrix)[0, 0].item()  # waits for a GPU
    return time.perf_counter() - start


def placed(denoiser: Any) -> Any:
    """A denoiser ready to sample: bfloat16 on a GPU, float32 on a CPU. Schedulers and autoencoders stay in float32.

    It is compiled where that is asked for.
    """
    device = best_device()
    model = denoiser.eval().requires_grad_(False).to(device)
    if device.type == "cuda":
        model = model.bfloat16()
    return torch.compile(model) if is_compiling() else model


def is_compiling() -> bool:
    """Whether networks go through torch.compile, by DDOQ_COMPILE=1: minutes at the first call, then faster."""
    return os.environ.get("DDOQ_COMPILE") == "1"
