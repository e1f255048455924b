"""The images of a training: where they lie, and batches of them on the device."""

from __future__ import annotations

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

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: torch.Tensor) -> torch.Tensor:
        """The images of rows (B,) as (B, 3, S, S) in [0, 1] on the device."""
        return to_unit(sent(self.x[sent(rows, self.x.device)], self.device))


def _has_room(device: torch.device, num_bytes: int) -> bool:
    return device.type == "cuda" and num_bytes <= torch.cuda.mem_get_info(device)[0] // GPU_SHARE
