"""The real console script on a tiny version of the recipe digits, made once and copied by the tests that change it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from tests.places import REPOSITORY

SCRIPTS = Path(sys.executable).parent
MARKER = "DDOQ_TEST_RUN"
METHODS = (
    '{"ddoq": {}, "random": {"cluster": {"method": "random"}, "decode": {"method": "medoid"}, "weights": "uniform"}}'
)
SETTINGS = {
    "seeds": "[0]",
    "autoencoder.train.channels": "[8, 8]",
    "autoencoder.train.num_steps": "40",
    "teacher.num_epochs": "4",
    "prior.train.num_layers": "1",
    "prior.train.num_steps": "20",
    "cluster.num_starts": "1",
    "decode.num_steps": "10",
    "train.num_epochs": "2",
    "methods": METHODS,
}
IPC = 3
TINY = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
STATE = re.compile(r"^│ (\w+) +│ ([a-z0-9, ]+?) +│", re.MULTILINE)


def environment(**extra: str) -> dict[str, str]:
    """The tests' environment without the caller's Prefect and Dask; children may keep compiled imports, for speed, and
    runs have one worker where a test does not say otherwise: another would do hardly more than its imports."""
    dropped = ("PREFECT_", "DDOQ_", "DASK_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    ours = {"OMP_NUM_THREADS": "1", "DDOQ_WORKERS": "1", "COLUMNS": "150", "NO_COLOR": "1", "DO_NOT_TRACK": "1"}
    return {**kept, **ours, **extra}


@dataclass
class Result:
    """How a command ended."""

    code: int
    output: str
    errors: str
    seconds: float

    @property
    def states(self) -> dict[str, str]:
        """Stage → cached or ran, from the closing table."""
        return {stage: state for stage, state in STATE.findall(self.output) if stage != "stage"}


@dataclass
class Command:
    """A running command, and by its marker in their environment all processes that it started."""

    process: subprocess.Popen[str]
    marker: str
    start: float = field(default_factory=time.monotonic)

    def alive(self) -> list[psutil.Process]:
        """The processes of this command that still run."""
        return [process for process in psutil.process_iter() if _has_marker(process, self.marker)]

    def result(self, timeout: float = 240) -> Result:
        """Wait for the end."""
        output, errors = self.process.communicate(timeout=timeout)
        return Result(self.process.returncode, output, errors, time.monotonic() - self.start)

    def end(self) -> None:
        """Kill what is left of it."""
        for process in self.alive():
            process.kill()
        self.process.wait(timeout=10)


def _has_marker(process: psutil.Process, marker: str) -> bool:
    try:
        return process.environ().get(MARKER) == marker and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def start(*command: str | Path, cwd: Path = REPOSITORY, read: bool = True, **extra: str) -> Command:
    """Start a command in a process group of its own. One whose output is not read may run for long: a pipe fills up."""
    marker = uuid.uuid4().hex
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**{MARKER: marker}, **extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if read else subprocess.DEVNULL,
        stderr=subprocess.PIPE if read else subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    return Command(process, marker)


def ddoq(*arguments: str | Path, **extra: str) -> Result:
    """Run `ddoq ...` to its end; nothing of it is left behind, whatever happens."""
    command = start(SCRIPTS / "ddoq", *arguments, **extra)
    try:
        return command.result()
    finally:
        command.end()


def start_tiny(root: Path, *more: str, **extra: str) -> Command:
    """Start the tiny run in a root."""
    return start(SCRIPTS / "ddoq", "run", "digits", "--ipc", str(IPC), *TINY, "--root", root, *more, **extra)


def run_tiny(root: Path, *more: str, **extra: str) -> Result:
    """Run the tiny run in a root to its end."""
    return ddoq("run", "digits", "--ipc", str(IPC), *TINY, "--root", root, *more, **extra)


def wait_until(met: Callable[[], object], seconds: float, what: str) -> None:
    """Return as soon as a condition is met; fail the test if it is not in time."""
    limit = time.monotonic() + seconds
    while not met():
        if time.monotonic() > limit:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.05)


@pytest.fixture
def commands() -> Iterator[list[Command]]:
    """Commands of a test, which are ended with it."""
    started: list[Command] = []
    yield started
    for command in started:
        command.end()


@dataclass(frozen=True)
class Services:
    """A Prefect server and a Dask cluster that tests share, as the settings that lead a run to them."""

    api: dict[str, str]
    dask: dict[str, str]

    @property
    def both(self) -> dict[str, str]:
        """Settings of a run that starts neither of its own."""
        return {**self.api, **self.dask}


@contextmanager
def serve_all(database: Path, folder: Path) -> Iterator[Services]:
    """`prefect server start` and `dask scheduler` with two `dask worker` processes, all on loopback.

    database  a `.prefect` to copy, as a new one takes 10 s
    folder    a new one, for the copy and the logs
    """
    shutil.copytree(database, folder)
    port, scheduler = free_port(), f"tcp://127.0.0.1:{free_port()}"
    api = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_HOME": str(folder)}
    local = ("--host", "127.0.0.1", "--no-dashboard")
    workers = (scheduler, *local, "--nworkers", "2", "--nthreads", "1", "--resources", "GPU=1")
    started = [
        _serve("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), log=folder / "api.log", **api),
        _serve("dask", "scheduler", *local, "--port", scheduler.rsplit(":", 1)[1], log=folder / "scheduler.log"),
        _serve("dask", "worker", *workers, log=folder / "workers.log"),
    ]
    try:
        wait_until(lambda: answers(f"{api['PREFECT_API_URL']}/health"), 120, "the Prefect server answers")
        yield Services(api, {"DDOQ_CLUSTER": scheduler})
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)


@pytest.fixture(scope="session")
def services(finished: tuple[Path, Result], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Services for all tests of this process."""
    with serve_all(finished[0] / ".prefect", tmp_path_factory.mktemp("shared") / "services") as found:
        yield found


def _serve(program: str | Path, *arguments: str, log: Path, **extra: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            [str(SCRIPTS / program), *arguments],
            env=environment(**extra),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def deployed(api: dict[str, str]) -> Iterator[Command]:
    """The worker of a process work pool that serves every deployment of the catalogue, as docs/prefect.md tells it."""
    prefect = SCRIPTS / "prefect"
    for words in (("work-pool", "create", "ddoq", "--type", "process"), ("--no-prompt", "deploy", "--all")):
        result = start(prefect, *words, **api).result()
        assert result.code == 0, result.output + result.errors
    worker = start(prefect, "worker", "start", "--pool", "ddoq", read=False, **api)
    try:
        yield worker
    finally:
        worker.end()


def answers(url: str) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The root and the result of one uninterrupted tiny run with a server and a cluster of its own. Do not change.

    The processes of a session of tests share it: the first that wants it makes it.
    """
    mine = tmp_path_factory.getbasetemp()
    folder = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "finished"
    folder.mkdir(exist_ok=True)
    told = folder / "result.json"
    with FileLock(folder / "lock"):
        if not told.exists():
            result = run_tiny(folder / "runs", "--workers", "2")
            assert result.code == 0, result.errors
            told.write_text(json.dumps(asdict(result)))
    return folder / "runs", Result(**json.loads(told.read_text()))


@pytest.fixture
def root(finished: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of the finished run, with the database of its Prefect server."""
    copy = tmp_path / "runs"
    shutil.copytree(finished[0], copy, symlinks=True)
    return copy
