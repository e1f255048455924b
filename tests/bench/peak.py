"""The largest memory that a job takes in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def peak_bytes(job: Callable[..., Any], *arguments: Any) -> int:
    """Peak resident memory of a fresh process that does job(*arguments), with all that it loads. Linux only."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_peak_of, job, *arguments).result()


def _peak_of(job: Callable[..., Any], *arguments: Any) -> int:
    job(*arguments)
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) << 10  # getrusage would count what forked the process
