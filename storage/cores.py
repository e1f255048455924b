"""How many cores there are to use, and what a process has of one while the others are used too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
BUSY = """
import os, sys, numpy
a = numpy.ones((256, 256), numpy.float32)
while os.getppid() == int(sys.argv[1]):
    a @ a
"""  # ends with who started it, also where that is killed


def num_cores() -> int:
    """Cores that this process may use; macOS knows only how many the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class BusyCores:
    """All cores but one at work: what two of them do at once is less than twice what one does alone."""

    def __init__(self) -> None:
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
        self.processes = [
            subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())], env=environment)  # noqa: S603  this Python
            for _ in range(num_cores() - 1)
        ]

    def __enter__(self) -> BusyCores:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Not during the block."""
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self.processes:
                process.send_signal(signal.SIGCONT)
