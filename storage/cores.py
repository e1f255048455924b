"""How many cores there are to use."""

from __future__ import annotations

import os


def num_cores() -> int:
    """Cores that this process may use; macOS knows only how many the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
