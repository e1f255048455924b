"""How much memory there is to use, and arrays that may be larger."""

from __future__ import annotations

import ctypes
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of cgroups 2 and 1
ARRAY_SHARE = 4  # an array that takes more than this part of the memory lies in a file
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h


def memory_bytes() -> int:
    """Memory that this process and its children may use: the machine's, or the container's where that is less."""
    limits = [Path(name).read_text().strip() for name in MEMORY_LIMITS if Path(name).is_file()]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])


def join(parts: Iterable[NDArray[np.uint8]], shape: tuple[int, ...], folder: Path) -> NDArray[np.uint8]:
    """Arrays that are made one after another, as one of this shape: in memory, or where it would take more than a
    quarter of that, mapped from a file on the folder's disk that has no name and is gone with the array."""
    if math.prod(shape) <= memory_bytes() // ARRAY_SHARE:
        whole, end = np.empty(shape, np.uint8), 0
        for part in parts:
            whole[end : end + len(part)] = part
            end += len(part)
        return whole
    with tempfile.TemporaryFile(dir=folder) as file:
        for part in parts:
            file.write(part.data)
        file.flush()
        return np.memmap(file, np.uint8, "c", shape=shape)


def keep_memory(num_bytes: int = 1 << 30) -> bool:
    """Let this process keep up to so much of what it frees, where glibc manages its memory. Returns whether it does.

    Else a large tensor goes back to the system as soon as it is freed, which maps and zeroes it again in the next step
    of a training: 40 % of a student's. Threads then share one heap, as others of their own keep nothing; it is to be
    asked for before they begin. An older glibc, which takes no more than 32 MiB, is left to its own rule.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    if not mallopt(M_MMAP_THRESHOLD, num_bytes):
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, num_bytes) and mallopt(M_ARENA_MAX, 1))
