"""`ddoq serve`: a server, deployments and a worker by one command, and runs that are asked for in another terminal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.flows.conftest import IPC, SCRIPTS, TINY, Command, Result, Services, ddoq, start, wait_until
from tests.flows.test_server import servers

READY = "Ctrl-C ends it"


class Served:
    """`ddoq serve` in a root, and what it tells to export in another terminal."""

    def __init__(self, command: Command, root: Path) -> None:
        self.command, self.root = command, root
        process = command.process
        assert process.stdout and process.stderr
        threading.Thread(target=process.stderr.read, daemon=True).start()  # the runs', which may be long
        self.told = ""
        while READY not in self.told:
            line = process.stdout.readline()
            assert line, f"it ended: {self.told}"
            self.told += line
        [exported] = [line.split()[1:] for line in self.told.splitlines() if line.split()[:1] == ["export"]]
        self.exported = dict(setting.split("=", 1) for setting in exported)

    def run(self, deployment: str, *given: str) -> Result:
        """Ask for a run in another terminal."""
        parameters = [part for parameter in given for part in ("-p", parameter)]
        command = start(SCRIPTS / "prefect", "deployment", "run", deployment, *parameters, "--watch", **self.exported)
        try:
            return command.result()
        finally:
            command.end()

    def is_gone(self) -> bool:
        """Whether nothing that the command started is left."""
        return not self.command.alive()


@contextmanager
def serving(recipe: str, root: Path, **extra: str) -> Iterator[Served]:
    """A command that is ended whatever happens."""
    command = start(SCRIPTS / "ddoq", "serve", recipe, *TINY, "--root", root, DDOQ_WORKERS="1", **extra)
    try:
        yield Served(command, root)
    finally:
        command.end()


@pytest.fixture(scope="module")
def digits(finished: tuple[Path, Result], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The recipe digits with a server of its own, where its tiny run has been."""
    root = tmp_path_factory.mktemp("served") / "runs"
    shutil.copytree(finished[0], root, symlinks=True)
    with serving("digits", root) as served:
        yield served


def test_a_run_takes_the_parameters_of_its_command(digits: Served) -> None:
    assert f"{SCRIPTS / 'prefect'} deployment run distill/digits -p ipc=5 --watch" in digits.told
    result = digits.run("distill/digits", f"ipc={IPC}")
    assert result.code == 0, result.output + result.errors
    assert json.loads((digits.root / "digits" / "run.json").read_text())["recipe"]["ipc"] == IPC


def test_pages_are_for_who_has_the_secret(digits: Served) -> None:
    api = digits.exported["PREFECT_API_URL"]
    assert api.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(api.removesuffix("/api"), timeout=10) as page:
        assert b"<html" in page.read()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{api}/admin/version", timeout=10)


REFUSED = {"ipc=0": "field 'ipc'", "data=/images": "leave it out"}  # by Prefect before a run, and by us in it


@pytest.mark.parametrize("parameter", REFUSED)
def test_a_wrong_parameter_is_told_where_it_was_given(parameter: str, digits: Served) -> None:
    result = digits.run("distill/digits", parameter)
    assert result.code == 1 and REFUSED[parameter] in " ".join(result.output.split()), result.output + result.errors


def test_sigterm_ends_the_server_and_what_runs(digits: Served) -> None:
    """The last of this server's tests."""
    asked = start(SCRIPTS / "prefect", "deployment", "run", "distill/digits", **digits.exported).result()
    assert asked.code == 0, asked.output + asked.errors
    alive = digits.command.alive
    wait_until(lambda: any("spawn_main" in " ".join(each.cmdline()) for each in alive()), 120, "a worker has started")
    digits.command.process.terminate()
    assert digits.command.process.wait(timeout=60) == 0
    wait_until(digits.is_gone, 10, "all have ended")


def test_a_server_that_is_there_is_used_and_stays(services: Services, tmp_path: Path) -> None:
    with serving("folder", tmp_path / "runs", **services.api) as served:
        assert served.exported == {"PREFECT_API_URL": services.api["PREFECT_API_URL"]}
        assert not servers(served.command)
        result = served.run("distill/folder", f"data={tmp_path / 'nowhere'}")
        told = " ".join(result.output.split())
        assert result.code == 1 and "Failed: " in told and "nowhere" in told and "does not exist" in told, result.output
        os.killpg(served.command.process.pid, signal.SIGINT)
        assert served.command.process.wait(timeout=60) == 0
        wait_until(served.is_gone, 10, "all have ended")
    with urllib.request.urlopen(f"{services.api['PREFECT_API_URL']}/health", timeout=10) as answer:
        assert answer.read() == b"true"


def test_an_unknown_recipe_is_refused_before_anything_starts(tmp_path: Path) -> None:
    result = ddoq("serve", "digits", "digit", "--root", tmp_path / "runs")
    assert result.code == 2 and "unknown recipe 'digit'" in result.errors
    assert not (tmp_path / "runs").exists()
