"""How many worker processes a local cluster has, or which other cluster is meant. Loads neither Dask nor Prefect."""

from __future__ import annotations

import os
import re

from storage.cores import num_cores
from storage.errors import UsageError
from storage.memory import memory_bytes

GIB = 2**30
WORKER_BYTES = GIB  # a worker holds 0.5 GiB of libraries before its first task
NUMBER = re.compile(r"0*[1-9][0-9]{0,8}")
ADDRESS = re.compile(r"(?:[a-z]+://)?(?:[^\s:/\[\]]+|\[[0-9a-fA-F:.%]+\]):([0-9]{1,5})")
MAX_PORT = 65535


def num_workers(given: str | None = None) -> int:
    """As given, else as DDOQ_WORKERS says, else one per core that there is memory for. Raises UsageError."""
    name, text = ("--workers", given) if given is not None else ("DDOQ_WORKERS", os.environ.get("DDOQ_WORKERS", ""))
    if given is None and not text:
        return max(min(num_cores(), memory_bytes() // WORKER_BYTES), 1)
    if not NUMBER.fullmatch(text):
        raise UsageError(f"{name}={text!r} is no number of worker processes: give 1 or more, or leave it out")
    check_memory(int(text), f"{name}={text}: give fewer")
    return int(text)


def check_memory(num: int, remedy: str) -> None:
    """Raise UsageError unless the memory is enough for so many worker processes; one is always tried."""
    have, need = memory_bytes(), num * WORKER_BYTES
    if num > 1 and need > have:
        raise UsageError(
            f"{num} worker processes need {need / GIB:.0f} GiB of memory, at least {WORKER_BYTES / GIB:.0f} GiB each, "
            f"and there are {have / GIB:.1f} GiB, enough for {max(have // WORKER_BYTES, 1)} ({remedy})"
        )


def scheduler_address(given: str | None = None) -> str | None:
    """Of a Dask scheduler, as given, else as DDOQ_CLUSTER says; None for a cluster of our own. Raises UsageError."""
    name, text = ("--cluster", given) if given is not None else ("DDOQ_CLUSTER", os.environ.get("DDOQ_CLUSTER", ""))
    if given is None and not text:
        return None
    match = ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[1]) <= MAX_PORT:
        raise UsageError(f"{name}={text!r} is no address of a Dask scheduler: give one like tcp://10.0.0.1:8786")
    return text
