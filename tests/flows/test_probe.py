"""Workers of another cluster, as processes of their own: who cannot do a run's tasks is named before the first one."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dask.distributed import Client

from flows.probe import MODULES, check_workers
from storage.errors import UsageError
from tests.flows.conftest import Command, Services, free_port, run_tiny, start, start_tiny, wait_until
from tests.flows.test_run import MANY, MOMENTS, wait_for_new
from tests.places import REPOSITORY

pytestmark = pytest.mark.slow

LIBRARIES = sysconfig.get_path("purelib")
Started = list[Command]


@pytest.fixture
def scheduler(commands: Started) -> str:
    """The address of a scheduler of its own."""
    port = str(free_port())
    arguments = ("-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--no-dashboard", "--port", port)
    commands.append(start(sys.executable, *arguments, read=False))
    return f"tcp://127.0.0.1:{port}"


def join(scheduler: str, name: str, resources: str, folder: Path, packages: str = str(REPOSITORY)) -> Command:
    """A worker whose Python finds these packages beside the libraries, and nothing that is installed as a link."""
    arguments = ("--name", name, "--host", "127.0.0.1", "--no-dashboard", "--nthreads", "1", "--resources", resources)
    path = ":".join(filter(None, [packages, LIBRARIES]))
    worker = ("-m", "distributed.cli.dask_worker", scheduler, *arguments)
    return start(sys._base_executable, *worker, cwd=folder, read=False, PYTHONPATH=path)  # type: ignore[attr-defined]


@contextmanager
def client_of(scheduler: str, num_workers: int) -> Iterator[Client]:
    with Client(scheduler, set_as_default=False, timeout=60) as client:
        client.wait_for_workers(num_workers, timeout=120)
        yield client


def test_each_worker_that_cannot_serve_is_named_with_the_reason(
    scheduler: str, commands: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, older = (tmp_path / name for name in ("here", "there", "older"))
    for folder in (here, there, older):
        folder.mkdir()
    for package in (module.partition(".")[0] for module in MODULES):
        shutil.copytree(REPOSITORY / package, older / package, ignore=shutil.ignore_patterns("__pycache__"))
    (older / "storage" / "names.py").write_text("# as it was once\n")
    (here / "images").mkdir()
    monkeypatch.chdir(here)
    commands += [
        join(scheduler, "good", "GPU=1", here),
        join(scheduler, "bare", "CPU=1", here, packages=""),
        join(scheduler, "older", "CPU=1", here, packages=str(older)),
        join(scheduler, "elsewhere", "CPU=1", there),
    ]
    with client_of(scheduler, 4) as client:
        with pytest.raises(UsageError) as refused:
            check_workers(client, here / "runs", {"data.path": "images/*.tar"})
        lines = sorted(str(refused.value).splitlines())
        assert [line.split(" (127.0.0.1) ")[0] for line in lines] == ["worker bare", "worker elsewhere", "worker older"]
        assert "lacks the package ddoq" in lines[0]
        assert f"does not see data.path='images/*.tar' from its folder {there}" in lines[1]
        assert "has ddoq in another version" in lines[2]
        assert not list((here / "runs").iterdir()), "nothing is left of the question"
        with pytest.raises(UsageError, match=r"worker elsewhere .* does not see /proc/self/cwd/runs"):
            check_workers(client, Path("/proc/self/cwd/runs"), {})
    for command in commands[2:]:
        command.end()
    with client_of(scheduler, 1) as client:
        wait_until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 1, 60, "the others are gone")
        check_workers(client, here / "runs", {"data.path": "images/*.tar", "prior.weights": "OWNER/NAME"})


def test_a_run_is_refused_before_its_first_task(
    scheduler: str, services: Services, commands: Started, tmp_path: Path
) -> None:
    commands.append(join(scheduler, "bare", "CPU=1", tmp_path, packages=""))
    result = run_tiny(tmp_path / "runs", "--cluster", scheduler, **services.api)
    assert result.code == 1
    assert "worker bare (127.0.0.1) lacks the package ddoq: install it there" in " ".join(result.errors.split())


def test_a_run_survives_one_of_two_workers(
    scheduler: str, root: Path, services: Services, commands: Started, tmp_path: Path
) -> None:
    commands += [join(scheduler, "gpu", "GPU=1", tmp_path), join(scheduler, "cpu", "CPU=1", tmp_path)]
    run = start_tiny(root, "--ipc", MANY, "--cluster", scheduler, **services.api)
    commands.append(run)
    moment = "some classes are clustered"
    wait_for_new(run, root, MOMENTS[moment], moment)
    commands[2].end()
    commands.append(join(scheduler, "second", "CPU=1", tmp_path))
    result = run.result()
    assert result.code == 0, result.errors
    assert result.states["cluster"] == "ran"
