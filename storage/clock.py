"""Where a stage's time and memory went, and with which versions."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("ddoq", "torch", "diffusers", "timm", "zarr", "numpy", "scikit-learn")


class Clock:
    """Adds up seconds by kind: `with clock("read"): ...`; kinds are read, compute and write."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[kind] = self._seconds.get(kind, 0.0) + time.perf_counter() - start

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds so far by kind."""
        return {kind: round(value, 4) for kind, value in self._seconds.items()}

    @staticmethod
    def peak_bytes() -> int:
        """Peak resident memory of this process so far."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def versions() -> dict[str, str]:
    """Versions of what an artifact's numbers depend on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
