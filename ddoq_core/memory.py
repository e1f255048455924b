"""Work in batches that the device's memory holds: a size by estimate, and halves where the estimate was too high."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

BYTES_PER_POSITION = 2**18  # of a latent: what Stable Diffusion and its autoencoder take at their widest, generously
CPU_BYTES = 2**32  # every CPU counts as this large, so that pictures do not depend on the machine's memory
MOST = 1024
LACKING = (  # in the errors of CUDA, cuBLAS and cuDNN, C++, PyTorch on a CPU, and oneDNN, which names no cause
    *("out of memory", "alloc_failed", "allocation_failed", "bad_alloc", "allocate memory", "enough memory"),
    "could not create a primitive",
)


def batch_size(device: torch.device, height: int, width: int) -> int:
    """How many latents (C, height, width) to decode at once: 1024 of 4×4, 16 of 32×32, 4 of 64×64 on a CPU."""
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else CPU_BYTES
    return max(1, min(MOST, memory // (BYTES_PER_POSITION * height * width)))


class HalvingBatches:
    """Applies work to slices of its arguments. A slice that does not fit into memory is done in halves, as are all
    later ones."""

    def __init__(self, size: int) -> None:
        self.size = size

    def map(
        self, work: Callable[..., torch.Tensor], *arguments: Sequence[Any] | NDArray[Any] | torch.Tensor
    ) -> torch.Tensor:
        """work(*slices) over all slices, joined. Raises what work raises, out of memory only for a slice of one."""
        total, done, start = len(arguments[0]), [], 0
        while start < total:
            end = min(start + self.size, total)
            try:
                done.append(work(*(argument[start:end] for argument in arguments)))
                start = end
            except (RuntimeError, MemoryError) as error:
                if end - start == 1 or not is_out_of_memory(error):
                    raise
                self.size = (end - start) // 2
            if start != end:
                torch.cuda.empty_cache()  # only now has the error let go of what the work had made
        return done[0] if len(done) == 1 else torch.cat(done)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was lacking: said by its class, or as cuDNN, cuBLAS and CPUs say it, in the text of another."""
    told = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in LACKING)
    return told or isinstance(error, torch.OutOfMemoryError | MemoryError)
