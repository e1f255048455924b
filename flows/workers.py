"""How many worker processes a local cluster has. Loads neither Dask nor Prefect."""

from __future__ import annotations

import os

from storage.cores import num_cores
from storage.errors import UsageError


def num_workers(given: str | None = None) -> int:
    """As given, else as DDOQ_WORKERS says, else one per core. Raises UsageError."""
    name, text = ("--workers", given) if given is not None else ("DDOQ_WORKERS", os.environ.get("DDOQ_WORKERS", ""))
    if given is None and not text:
        return num_cores()
    if not (text.isascii() and text.isdigit() and int(text)):
        raise UsageError(f"{name}={text!r} is no number of worker processes: give 1 or more, or leave it out")
    return int(text)
