"""Where models run, and in which precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU; DDOQ_DEVICE names another, e.g. cpu or cuda:1."""
    return torch.device(os.environ.get("DDOQ_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def mixed_precision(device: torch.device, *, strides: bool) -> AbstractContextManager[object]:
    """bfloat16 where it is faster and safe: on a GPU, and by a CPU's AMX where no convolution has a stride; elsewhere
    nothing changes. Convolutions that a CPU trains in it come out with other last bits every time by AVX512-bf16, and
    by AMX with NaN where a stride of 2 meets a map of 1×1 (torch 2.15)."""
    safe = device.type == "cuda" or (not strides and convolves_well_in_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=safe)


def convolves_well_in_bfloat16(device: torch.device) -> bool:
    """Whether convolutions of maps that are not tiny can be trained in bfloat16: on a GPU, and by a CPU's AMX, where
    1,080 shapes from 1×1 to 16×16 were held against float32 and came out the same every time (torch 2.15)."""
    return device.type == "cuda" or bool(_abilities().get("amx_bf16"))


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


def multiplies_faster_in_bfloat16(device: torch.device) -> bool:
    """Whether matrices multiply in bfloat16 faster than in float32: on a GPU, and on a CPU that has instructions for it
    (2.4 times as fast by AVX512's, measured; by AMX's ten). Others are slower.

    It is looked up, not measured, so that a training which goes on in another process has the same bits.
    """
    able = _abilities()
    return device.type == "cuda" or bool(able.get("amx_bf16") or able.get("avx512_bf16"))


def _abilities() -> dict[str, Any]:
    """What the processor's instructions can do; nothing, to a torch that does not say."""
    return dict(getattr(torch.cpu, "get_capabilities", dict)())


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
