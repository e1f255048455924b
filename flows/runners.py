"""Where tasks run. The only place that knows Dask's settings.

A local cluster has one single-threaded worker process per core, unless DDOQ_WORKERS says how many; on a machine with
GPUs, one of them per GPU sees that GPU, the others see none. Its processes speak TLS with a key that only they have, as
whoever reaches a scheduler can run code in its workers. DDOQ_CLUSTER is the address of an existing scheduler, e.g.
tls://10.0.0.1:8786, whose certificates are those of Dask's configuration. The cluster starts with the first task that
is submitted: a run with nothing to do starts no process. Tasks for a GPU take the Dask resource GPU, which on a machine
without GPUs every worker offers; on one with GPUs all others take the resource CPU, so that none keeps a GPU waiting.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import dask
from distributed import KilledWorker, Nanny, Scheduler, Semaphore, SpecCluster, worker_client
from distributed.comm import connect
from distributed.security import Security
from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner
from prefect_dask import DaskTaskRunner

from flows.probe import check_workers
from flows.workers import GIB, check_memory, num_workers, scheduler_address
from storage.cores import THREAD_VARIABLES
from storage.errors import UsageError, UserError, first_line

LOG_LEVEL = logging.CRITICAL  # a task's error reaches the run; what is left are farewells of processes that end
LOOPBACK = "127.0.0.1"
ONE_GPU, ONE_CPU = {"GPU": 1}, {"CPU": 1}
CONNECT_SECONDS = 15  # to another scheduler
WAIT_SECONDS = 60  # for its first worker
# A terminal sends Ctrl-C to every process: the workers leave it to the run, which ends them. It also ends them where
# Prefect's server is gone, and its events, of which they would tell, cannot be sent.
PRELOAD = """
import logging, signal
from storage.memory import keep_memory
signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.getLogger("EventsWorker").setLevel(logging.CRITICAL)
keep_memory()
"""
SETTINGS = {  # of a local cluster
    "distributed.worker.daemon": False,  # tasks may start processes of their own
    "distributed.worker.preload": [PRELOAD],
    "distributed.scheduler.allowed-failures": 3,  # a worker may die; a task that kills them ends the run
    "distributed.admin.low-level-log-length": 0,
    "distributed.scheduler.http.routes": [],  # tell whoever asks about a run's tasks, without TLS
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,  # it stops the worker's Python a hundred times a second
    # One heap for all threads of a worker, from its start on: one that began before `keep_memory` may have its own.
    "distributed.nanny.pre-spawn-environ": {**dict.fromkeys(THREAD_VARIABLES, "1"), "MALLOC_ARENA_MAX": "1"},
}


class WorkersDied(UserError, RuntimeError):
    """A task ended one worker process after the other."""


class Runner(DaskTaskRunner):
    """Dask as we use it. It is set up with the first task that is submitted: an import changes nothing."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._checked: set[str] = set()

    @property
    def client(self) -> Any:
        if self._client is not None:
            return self._client
        logging.getLogger("distributed").setLevel(LOG_LEVEL)
        return super().client if self.address is None else self._connect(self.address)

    def check(self, root: Path, places: Mapping[str, str]) -> None:
        """Raise UsageError for workers that cannot do tasks on these. Those that were asked are not asked again."""
        workers = set(self.client.scheduler_info(n_workers=-1)["workers"])
        if workers - self._checked:
            check_workers(self.client, root, places)
            self._checked |= workers

    def _connect(self, address: str) -> Any:
        scheduler_address(address)
        try:
            asyncio.run(_shake_hands(address))
            client = super().client
        except Exception as error:  # of whatever kind what answers there provokes
            raise UsageError(
                f"no Dask scheduler answers at {address!r} ({first_line(error) or type(error).__name__}): "
                "start one, or leave --cluster and DDOQ_CLUSTER out"
            ) from error
        if not address.startswith("tls://"):
            _warn_once(
                f"whoever reaches {address} can run code in its workers: start it with TLS "
                "(https://distributed.dask.org/en/stable/tls.html) and give its address as tls://"
            )
        return client


def dask_runner(cluster: str | None = None, workers: int | None = None) -> TaskRunner[Any]:
    """A runner on an existing scheduler, or on a local cluster of single-threaded worker processes."""
    if address := cluster or os.environ.get("DDOQ_CLUSTER"):
        return Runner(address=address)
    return Runner(cluster_class=local_cluster, cluster_kwargs={"workers": workers})


async def _shake_hands(address: str) -> None:
    """Raise unless what answers speaks as Dask does: a client would wait for it without end."""
    arguments = Security().get_connection_args("client")
    comm = await asyncio.wait_for(connect(address, **arguments), CONNECT_SECONDS)
    await comm.close()


def result_of(future: Any) -> Any:
    """What a task returned. Raises what it raised, and WorkersDied."""
    try:
        return future.result()
    except KilledWorker as error:
        limit = error.last_worker.memory_limit
        each = f" of {limit / GIB:.1f} GiB each" if limit else ""
        raise WorkersDied(
            f"{error.allowed_failures + 1} worker processes{each} died in the task {error.task}, most likely for want "
            "of memory: give fewer of them with --workers, and run the same command again to go on"
        ) from error


class LocalCluster(SpecCluster):
    """A cluster without a dashboard. Its scheduler answers web browsers all the same, with 404."""

    dashboard_link = ""


class LocalNanny(Nanny):
    """The keeper of one worker process."""

    async def kill(self, *given: Any, **named: Any) -> None:
        """End the worker. Where one died in the moment it had connected, Dask (2026.8) takes its successor, whose
        process is just being started, for running, and fails to wait for it: such a one ends by itself, as it finds
        neither keeper nor scheduler."""
        with suppress(AssertionError):
            await super().kill(*given, **named)


def local_cluster(workers: int | None = None) -> SpecCluster:
    """A cluster on this machine, on loopback, with as many worker processes, but at least one per GPU."""
    dask.config.set(SETTINGS)
    security = Security.temporary()
    listen = {"host": LOOPBACK, "port": 0, "protocol": "tls", "security": security}
    scheduler = {**listen, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
    specs = worker_specs(gpu_names(), workers or num_workers())
    for spec in specs.values():
        spec["options"] |= {"protocol": "tls", "security": security}
    return LocalCluster(
        workers=specs,
        scheduler={"cls": Scheduler, "options": scheduler},
        security=security,
        silence_logs=LOG_LEVEL,
    )


def worker_specs(gpus: list[str], workers: int) -> dict[str, dict[str, Any]]:
    """Dask's specification of the workers: one per GPU, and the rest without one; without GPUs, all offer one.

    gpus  names as CUDA_VISIBLE_DEVICES takes them
    Each may take an equal share of the memory. On a machine with GPUs those without one share half of it, and one with
    a GPU is never ended for what it holds, which may be a whole distilled set.
    """
    names = [f"gpu-{gpu}" for gpu in gpus] + [f"cpu-{k}" for k in range(max(workers - len(gpus), 1))]
    check_memory(len(names), "choose fewer GPUs with CUDA_VISIBLE_DEVICES" if gpus else "give fewer")
    common = {"host": LOOPBACK, "nthreads": 1, "dashboard": False, "silence_logs": LOG_LEVEL}
    if gpus:
        others = len(names) - len(gpus)
        limit = 1 / (2 * others)  # of the machine's memory; 0 is none
        own = [{"env": {"CUDA_VISIBLE_DEVICES": gpu}, "resources": ONE_GPU, "memory_limit": 0} for gpu in gpus]
        own += [{"env": {"CUDA_VISIBLE_DEVICES": ""}, "resources": ONE_CPU, "memory_limit": limit}] * others
    else:
        own = [{"resources": ONE_GPU, "memory_limit": 1 / len(names)}] * len(names)
    options = zip(names, own, strict=True)
    return {name: {"cls": LocalNanny, "options": {**common, **each}} for name, each in options}


def gpu_names() -> list[str]:
    """The GPUs this process may use: those of CUDA_VISIBLE_DEVICES, else all that the driver lists."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    return list(_driver_lists())


@lru_cache
def _driver_lists() -> tuple[str, ...]:
    if (program := shutil.which("nvidia-smi")) is None:
        return ()
    command = [program, "--list-gpus"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  the driver's own
    return tuple(str(k) for k, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU "))


def ask_workers(root: Path, places: Mapping[str, str]) -> None:
    """Wait for the first worker of another cluster. Raises UsageError where none comes, and for those that cannot do a
    run's tasks: see flows.probe."""
    runner = _runner()
    if runner.address is None:
        return
    try:
        runner.client.wait_for_workers(1, timeout=WAIT_SECONDS)
    except TimeoutError as error:
        raise UsageError(f"no worker has joined {runner.address}: start some with `dask worker`") from error
    runner.check(root, places)


def placed(*, gpu: bool) -> AbstractContextManager[Any]:
    """Tasks submitted in this context go to workers with a GPU, or to those without one, on a cluster that tells them
    apart; else to any."""
    runner, wanted = _runner(), ONE_GPU if gpu else ONE_CPU
    if runner.address is None:  # a local cluster has such workers, even if none has answered yet
        return dask.annotate(resources=wanted) if gpu or gpu_names() else nullcontext()
    workers = runner.client.scheduler_info(n_workers=-1)["workers"].values()
    if any(worker["resources"].keys() >= wanted.keys() for worker in workers):
        return dask.annotate(resources=wanted)
    if gpu:
        _warn_once(
            f"no worker of {runner.address} offers the resource GPU: tasks for a GPU run on any worker; "
            'start those that have one with --resources "GPU=1", and the others with "CPU=1"'
        )
    return nullcontext()


def _runner() -> Any:
    context = FlowRunContext.get()
    assert context is not None, "tasks are submitted inside a flow"
    return context.task_runner


@contextmanager
def shared_work() -> Iterator[Callable[..., Iterable[Any]]]:
    """In a task, what stands for `map`: its calls go to all workers but those with a GPU, for one task at a time.

    That task's worker meanwhile takes others, so that it holds what two tasks hold; one that comes second works alone.
    """
    turn = Semaphore(max_leases=1, name="shared work")
    if not turn.acquire(timeout=0):
        yield map
        return
    try:
        with worker_client() as client:
            yield partial(_map_over, client)
    finally:
        turn.release()


def _map_over(client: Any, function: Callable[..., Any], *arguments: Iterable[Any]) -> Iterator[Any]:
    """As `map`, by the client's workers, before what else waits for them."""
    told = client.scheduler_info(n_workers=-1)["workers"]
    where = [address for address, worker in told.items() if worker["resources"].keys() >= ONE_CPU.keys()]
    for future in client.map(function, *arguments, pure=False, priority=1, workers=where or None):
        yield future.result()
        future.release()


@lru_cache
def _warn_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)
