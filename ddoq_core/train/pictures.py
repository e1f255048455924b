"""The images of a training: where they lie, and batches of them on the device."""

from __future__ import annotations

import mmap

import numpy as np
import torch
from numpy.typing import NDArray

from ddoq_core.devices import sent
from ddoq_core.images import to_unit

GPU_SHARE = 2  # of a GPU's free memory, images take at most this part


class Pictures:
    """Images (n, S, S, 3) uint8, in memory or mapped from a file, of which no copy is made but on a GPU that has room
    for them. Where it has none, batches are gathered on the CPU and sent. Floats are made of a batch alone."""

    def __init__(self, images: NDArray[np.uint8], device: torch.device) -> None:
        self.device, self.size_px = device, images.shape[1]
        x = torch.from_numpy(images)
        self.x = x.to(device) if _has_room(device, images.nbytes) else x
        self._file = images

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: torch.Tensor) -> torch.Tensor:
        """The images of rows (B,) as (B, 3, S, S) in [0, 1] on the device."""
        x = sent(self.x[sent(rows, self.x.device)], self.device)  # (B, S, S, 3)
        let_go(self._file)
        return to_unit(x)


def let_go(images: NDArray[np.uint8]) -> None:
    """Give back the pages of a mapped file, which would count as this process's memory from their first use on."""
    if isinstance(images.base, mmap.mmap):
        images.base.madvise(mmap.MADV_DONTNEED)


def _has_room(device: torch.device, num_bytes: int) -> bool:
    return device.type == "cuda" and num_bytes <= torch.cuda.mem_get_info(device)[0] // GPU_SHARE
