"""Where tasks run. The only place that knows Dask's settings.

A local cluster has one single-threaded worker process per core, unless DDOQ_WORKERS says how many; DDOQ_CLUSTER
is the address of an existing scheduler, e.g. tcp://10.0.0.1:8786. The cluster starts with the first task that is
submitted: a run with nothing to do starts no process.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import dask
from prefect.task_runners import TaskRunner
from prefect_dask import DaskTaskRunner

LOG_LEVEL = logging.CRITICAL  # a task's error reaches the run; what is left are farewells of processes that end
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def dask_runner(cluster: str | None = None, workers: int | None = None) -> TaskRunner[Any]:
    """A runner on an existing scheduler, or on a local cluster of single-threaded worker processes."""
    cluster = cluster or os.environ.get("DDOQ_CLUSTER")
    workers = workers or int(os.environ.get("DDOQ_WORKERS", 0)) or len(os.sched_getaffinity(0))
    logging.getLogger("distributed").setLevel(LOG_LEVEL)
    if cluster:
        return DaskTaskRunner(address=cluster)
    dask.config.set(
        {
            "distributed.worker.daemon": False,  # tasks may start processes of their own
            # A terminal sends Ctrl-C to every process: the workers leave it to the run, which ends them.
            "distributed.worker.preload": ["import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)"],
            "distributed.scheduler.allowed-failures": 3,  # a worker may die; a task that kills them ends the run
            "distributed.admin.low-level-log-length": 0,
            "distributed.nanny.pre-spawn-environ": dict.fromkeys(THREAD_VARIABLES, "1"),
        }
    )
    return DaskTaskRunner(
        cluster_kwargs={
            "n_workers": workers,
            "threads_per_worker": 1,
            "host": "127.0.0.1",
            "scheduler_kwargs": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},  # its HTTP port: any free one
            "silence_logs": LOG_LEVEL,
        }
    )
