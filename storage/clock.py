"""Where a stage's time and memory went, and with which versions."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PACKAGES = ("ddoq", "torch", "diffusers", "timm", "zarr", "numpy", "scikit-learn")


class Clock:
    """Adds up seconds by kind: `with clock("read"): ...`; kinds are read, compute and write.

    What is timed inside something else counts only for its own kind. For one thread at a time.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._inside = 0.0  # seconds that were timed within what is being timed

    @contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        start, outside, self._inside = time.perf_counter(), self._inside, 0.0
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self._seconds[kind] = self._seconds.get(kind, 0.0) + elapsed - self._inside
            self._inside = outside + elapsed

    def each(self, kind: str, items: Iterable[T]) -> Iterator[T]:
        """The items, the time to get each counted."""
        iterator = iter(items)
        while True:
            with self(kind):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def share(self, parts: int) -> Clock:
        """A clock that starts with this one's seconds divided by a number of parts."""
        clock = Clock()
        clock._seconds = {kind: value / parts for kind, value in self._seconds.items()}
        return clock

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds so far by kind."""
        return {kind: round(value, 4) for kind, value in self._seconds.items()}

    @staticmethod
    def peak_bytes() -> int:
        """Peak resident memory of this process so far: of Linux's two figures the one that a program does not take over
        from the process that started it."""
        try:
            return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
        except (OSError, IndexError):
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
