"""Local clusters: one worker per GPU and the rest without one, and tasks that find their way."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import psutil
import pytest
from dask.distributed import Client, LocalCluster
from distributed.comm import connect
from distributed.process import AsyncProcess
from distributed.security import Security
from prefect.context import FlowRunContext

import flows.runners
import flows.workers
from flows.runners import (
    ONE_CPU,
    ONE_GPU,
    WorkersDied,
    dask_runner,
    gpu_names,
    local_cluster,
    placed,
    result_of,
    shared_work,
    worker_specs,
)
from flows.workers import GIB, num_workers, scheduler_address
from storage.cores import num_cores
from storage.errors import UsageError, UserError
from storage.memory import keep_memory, memory_bytes
from tests.flows.conftest import wait_until

pytestmark = pytest.mark.slow

NUM_FITTING = max(min(num_cores(), memory_bytes() // GIB), 1)


def seen(specs: dict[str, dict[str, Any]]) -> dict[str, tuple[str | None, str, float]]:
    """Worker → CUDA_VISIBLE_DEVICES (None: as the machine has it), the resource it offers, its share of the memory."""
    options = {name: spec["options"] for name, spec in specs.items()}
    return {
        name: (o.get("env", {}).get("CUDA_VISIBLE_DEVICES"), *o["resources"], o["memory_limit"])
        for name, o in options.items()
    }


def test_two_gpus_and_four_cores() -> None:
    specs = worker_specs(["0", "1"], 4)
    gpus = {"gpu-0": ("0", "GPU", 0), "gpu-1": ("1", "GPU", 0)}
    assert seen(specs) == {**gpus, "cpu-0": ("", "CPU", 0.25), "cpu-1": ("", "CPU", 0.25)}, "0 is no limit"
    assert {spec["options"]["nthreads"] for spec in specs.values()} == {1}


def test_more_gpus_than_cores_leave_one_worker_without() -> None:
    gpus = {"gpu-2": ("2", "GPU", 0), "gpu-5": ("5", "GPU", 0)}
    assert seen(worker_specs(["2", "5"], 1)) == {**gpus, "cpu-0": ("", "CPU", 0.5)}


def test_without_gpus_every_worker_offers_one() -> None:
    assert seen(worker_specs([], 4)) == dict.fromkeys((f"cpu-{k}" for k in range(4)), (None, "GPU", 0.25))


@pytest.mark.parametrize(
    ("visible", "names"), [("", []), ("-1", []), ("0", ["0"]), ("3, 1", ["3", "1"]), ("GPU-8f2a", ["GPU-8f2a"])]
)
def test_gpus_that_are_chosen(visible: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_names() == names


@pytest.mark.parametrize(
    ("program", "names"),
    [
        (None, []),
        ("echo 'GPU 0: NVIDIA H200 (UUID: GPU-1a)'; echo 'GPU 1: NVIDIA H200 (UUID: GPU-2b)'", ["0", "1"]),
        ('echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver"; exit 9', []),
    ],
)
def test_gpus_that_the_driver_lists(
    program: str | None, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    flows.runners._driver_lists.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    if program:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpu_names() == names
    flows.runners._driver_lists.cache_clear()


def maps_again(_: int) -> int:
    """Pages that a worker has to map for a large tensor, freed and made again ten times, after ten others; the most of
    several threads, one after the other, as tasks run in threads, and trainings start more."""
    import resource
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier, Lock

    import torch

    all_there, alone = Barrier(8), Lock()

    def maps(_: int) -> int:
        all_there.wait()
        with alone:
            for k in range(20):
                if k == 10:
                    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
                torch.ones(64 << 20, dtype=torch.uint8)
            return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    with ThreadPoolExecutor(8) as pool:
        return max(pool.map(maps, range(8)))


def test_workers_keep_the_memory_of_large_arrays_for_the_next() -> None:
    with local_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        if not client.submit(keep_memory).result(timeout=60):
            pytest.skip("an older glibc, or none")
        assert client.submit(maps_again, 0).result(timeout=60) < 40_000, "of 163,840"


def worker_environment(hold: float = 0.1) -> tuple[str, str]:
    """CUDA_VISIBLE_DEVICES and OMP_NUM_THREADS of the process this runs in; long enough that others take part."""
    import time

    time.sleep(hold)
    return os.environ.get("CUDA_VISIBLE_DEVICES", "none"), os.environ.get("OMP_NUM_THREADS", "none")


def test_tasks_for_a_gpu_run_where_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    with local_cluster(3) as cluster, Client(cluster, set_as_default=False) as client:
        told = client.scheduler_info(n_workers=-1)["workers"].values()
        assert {w["name"]: w["resources"] for w in told} == {"gpu-6": ONE_GPU, "gpu-7": ONE_GPU, "cpu-0": ONE_CPU}
        assert set(client.run(worker_environment).values()) == {("6", "1"), ("7", "1"), ("", "1")}
        monkeypatch.setattr(FlowRunContext, "get", lambda: SimpleNamespace(task_runner=SimpleNamespace(address=None)))
        bound = {}
        for gpu in (True, False):
            with placed(gpu=gpu):
                bound[gpu] = [client.submit(worker_environment, pure=False) for _ in range(8)]
        assert {visible for visible, _ in client.gather(bound[True])} == {"6", "7"}
        assert {visible for visible, _ in client.gather(bound[False])} == {""}, "a GPU waits for nobody"


def test_on_a_machine_without_gpus_every_worker_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with local_cluster(2) as cluster, Client(cluster, set_as_default=False) as client, dask.annotate(resources=ONE_GPU):
        futures = [client.submit(worker_pid, pure=False) for _ in range(8)]
        assert len(set(client.gather(futures))) == 2


def test_a_cluster_that_offers_no_gpu_is_used_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalCluster(n_workers=1, dashboard_address=None) as cluster, Client(cluster, set_as_default=False) as client:
        running = SimpleNamespace(task_runner=SimpleNamespace(client=client, address=cluster.scheduler_address))
        monkeypatch.setattr(FlowRunContext, "get", lambda: running)
        for _ in range(2):
            for gpu in (True, False):
                with placed(gpu=gpu):
                    assert client.submit(worker_pid, pure=False).result(timeout=60) > 0
    assert caplog.text.count("offers the resource GPU") == 1


def test_a_scheduler_without_tls_is_used_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        for _ in range(2):
            with dask_runner(cluster.scheduler_address) as runner:
                assert runner.client.scheduler_info()["address"] == cluster.scheduler_address
        told = [record.message for record in caplog.records if "with TLS" in record.message]
        assert len(told) == 1 and cluster.scheduler_address in told[0]


def test_a_scheduler_with_tls_is_met_with_dasks_own_certificates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Security.temporary()
    (tmp_path / "cert.pem").write_text(keys.tls_client_cert)
    (tmp_path / "key.pem").write_text(keys.tls_client_key)
    with LocalCluster(n_workers=0, dashboard_address=None, protocol="tls", security=keys) as cluster:
        with pytest.raises(UsageError, match="no Dask scheduler answers"), dask_runner(cluster.scheduler_address) as r:
            r.client  # noqa: B018
        mine = {f"distributed.comm.tls.client.{name}": str(tmp_path / f"{name}.pem") for name in ("cert", "key")}
        with (
            dask.config.set({"distributed.comm.tls.ca-file": str(tmp_path / "cert.pem"), **mine}),
            dask_runner(cluster.scheduler_address) as runner,
        ):
            assert runner.client.scheduler_info()["address"].startswith("tls://")
    assert "with TLS" not in caplog.text


async def knock(address: str, keys: Security) -> None:
    """Connect as a client with some keys, and go."""
    comm = await connect(address, timeout=2, **keys.get_connection_args("client"))
    await comm.close()


def test_a_local_cluster_lets_in_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with local_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        [worker] = client.scheduler_info(n_workers=-1)["workers"]
        strangers = {"tcp": Security(), "tls": Security.temporary()}
        for address in (cluster.scheduler_address, worker):
            for scheme, keys in strangers.items():
                reached = address.replace("tls://", f"{scheme}://")
                with pytest.raises(OSError):
                    asyncio.run(knock(reached, keys))
            asyncio.run(knock(address, cluster.security))


def test_workers_that_die_for_want_of_memory_are_told_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with local_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        future = client.submit(os._exit, 9)  # as the kernel and Dask's nanny end one
        with pytest.raises(WorkersDied, match=r"4 worker processes of .* GiB each died .* --workers") as died:
            result_of(future)
    assert isinstance(died.value, UserError)


def test_a_cluster_closes_while_a_worker_that_died_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with local_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        pid = client.submit(os.getpid).result()
        (keeper,) = cluster.workers.values()
        assert keeper.pid == pid

        async def just_being_started() -> None:
            keeper.process.process = AsyncProcess(target=print)  # as Dask leaves it: running, and not started yet

        cluster.sync(just_being_started)
    wait_until(lambda: not psutil.pid_exists(pid), 30, "the worker ends by itself")


def test_a_local_cluster_has_gpu_workers_before_any_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlowRunContext, "get", lambda: SimpleNamespace(task_runner=dask_runner(workers=1)))
    for visible, expected in (("", {}), ("0", {"resources": ONE_CPU})):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with placed(gpu=True):
            assert dask.get_annotations() == {"resources": ONE_GPU}
        with placed(gpu=False):
            assert dask.get_annotations() == expected


def worker_pid() -> int:
    """The process this runs in, held long enough that others take part."""
    worker_environment()
    return os.getpid()


def pids_of_calls(hold: float) -> tuple[int, list[tuple[int, int]]]:
    """The process of a task that shares its work, and what ten calls were and where."""
    with shared_work() as each:
        return os.getpid(), list(each(call_pid, range(10), [hold] * 10))


def call_pid(call: int, hold: float) -> tuple[int, int]:
    time.sleep(hold)
    return call, os.getpid()


def dies_once(flag: Path, call: int) -> int:
    """Ends its process, as the kernel does for want of memory, in one of the calls."""
    if call == 5 and not flag.exists():
        flag.touch()
        os._exit(9)
    return call


def squares_of_survivors(flag: Path) -> list[int]:
    with shared_work() as each:
        return [call**2 for call in each(partial(dies_once, flag), range(10))]


def test_one_task_at_a_time_shares_its_work_and_survives_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6")
    with (
        local_cluster(3) as cluster,
        Client(cluster, set_as_default=False) as client,
        dask.annotate(resources=ONE_CPU),
    ):
        client.wait_for_workers(3)
        _, shared = client.submit(pids_of_calls, 0.1, pure=False).result(60)
        assert [call for call, _ in shared] == list(range(10))
        assert len({where for _, where in shared}) == 2, "and a GPU waits for nobody"
        told = client.gather([client.submit(pids_of_calls, 0.3, pure=False) for _ in range(2)])
        assert [pid for pid, calls in told if {where for _, where in calls} == {pid}], "the second one works alone"
        assert client.submit(squares_of_survivors, tmp_path / "flag").result(120) == [call**2 for call in range(10)]


PURE_IMPORT = """
import logging, os
if hasattr(os, "sched_getaffinity"):
    del os.sched_getaffinity
import dask, distributed, prefect_dask
before, level = repr(dask.config.config), logging.getLogger("distributed").level
import flows.compare, flows.distill
assert repr(dask.config.config) == before
assert logging.getLogger("distributed").level == level
"""


def test_an_import_sets_nothing_up_and_asks_for_nothing() -> None:
    with_nonsense = {**os.environ, "DDOQ_WORKERS": "abc"}
    done = subprocess.run([sys.executable, "-c", PURE_IMPORT], env=with_nonsense, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("given", "environment", "number"), [("3", "2", 3), (None, "2", 2), (None, "", NUM_FITTING)])
def test_number_of_workers(given: str | None, environment: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDOQ_WORKERS", environment)
    assert num_workers(given) == number


def test_workers_are_as_many_as_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.workers, "memory_bytes", lambda: int(3.8 * GIB))
    monkeypatch.setattr(flows.workers, "num_cores", lambda: 64)
    assert num_workers() == 3
    assert num_workers("3") == 3
    with pytest.raises(UsageError, match=r"4 worker processes need 4 GiB .* are 3\.8 GiB, enough for 3"):
        num_workers("4")
    assert len(worker_specs(["0", "1"], 3)) == 3
    with pytest.raises(UsageError, match="fewer GPUs with CUDA_VISIBLE_DEVICES"):
        worker_specs(["0", "1", "2"], 1)
    monkeypatch.setattr(flows.workers, "memory_bytes", lambda: GIB // 2)
    assert num_workers() == num_workers("1") == 1, "one is always tried"


@pytest.mark.parametrize("text", ["tcp://10.0.0.1:8786", "tls://node-1.lan:80", "localhost:1", "tcp://[::1]:65535"])
def test_address_of_a_scheduler(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDOQ_CLUSTER", text)
    assert scheduler_address(text) == scheduler_address() == text


@pytest.mark.parametrize("text", ["", "localhost", "localhost:4399x", "tcp://a b:1", "a:0", "a:65536", "http://a:1/b"])
def test_no_address_of_a_scheduler(text: str) -> None:
    with pytest.raises(UsageError, match="is no address of a Dask scheduler"):
        scheduler_address(text)


@pytest.mark.parametrize("text", ["9" * 5000, "abc", "0", "-1", "2.5", "", " "])
def test_no_number_of_workers(text: str) -> None:
    with pytest.raises(UsageError, match=f"--workers={text!r} is no number"):
        num_workers(text)


def test_a_deployment_starts_as_many_workers_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDOQ_WORKERS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with local_cluster() as cluster:
        assert len(cluster.worker_spec) == 1
