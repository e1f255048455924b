"""The Prefect server of a run: lost in mid-run, something else at its address, without room, closed to others."""

from __future__ import annotations

import json
import re
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import Command, ddoq, start_tiny, wait_until
from tests.flows.test_run import BELOW, MANY, MOMENTS, artifacts

pytestmark = pytest.mark.slow

SECONDS_WITHOUT_SERVER = 30


def servers(command: Command) -> list[psutil.Process]:
    """The processes of a command's Prefect server."""
    return [process for process in command.alive() if "prefect" in process.cmdline() and "server" in process.cmdline()]


def test_a_run_goes_on_without_its_server(root: Path, commands: list[Command]) -> None:
    command = start_tiny(root, "--ipc", MANY)
    commands.append(command)
    before = set(root.glob(MOMENTS["some classes are clustered"]))
    wait_until(lambda: set(root.glob(MOMENTS["some classes are clustered"])) - before, 120, "clustering")
    for process in servers(command):
        process.kill()
    wait_until(lambda: len(artifacts(root, "report")) == 2, 240, "the report is made")
    result = command.result(timeout=SECONDS_WITHOUT_SERVER)
    assert result.code == 0, result.errors
    assert {result.states[stage] for stage in BELOW} == {"ran"}
    told = [line for line in result.errors.splitlines() if not re.match(r"\w+: \d+/\d+", line)]  # but progress
    assert len(told) == 1 and "Prefect shows no more tables of this run, which goes on" in told[0], result.errors
    assert json.loads((root / "digits" / "run.json").read_text())["recipe"]["ipc"] == int(MANY)
    assert (root / "digits" / "report").resolve() in artifacts(root, "report").values()


class Page(BaseHTTPRequestHandler):
    """A web server that has something to say about everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>true</html>")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_server() -> Iterator[str]:
    """Its host and port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def listener(greeting: bytes = b"") -> Iterator[str]:
    """Host and port of something that takes connections, says a word or nothing, and waits."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return
                taken[-1].sendall(greeting)

        threading.Thread(target=take, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            connection.close()


OTHERS = {
    "a web server": (web_server, "something else"),
    "a silent listener": (listener, "timed out"),
    "another protocol": (lambda: listener(b"220 mail.example.org\r\n"), "220 mail"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_no_prefect_api_is_named(other: str, tmp_path: Path) -> None:
    serve, said = OTHERS[other]
    with serve() as address:
        result = ddoq("run", "digits", "--root", tmp_path / "runs", PREFECT_API_URL=f"http://{address}/api")
    [line] = result.errors.splitlines()
    assert result.code == 1
    assert f"no Prefect API answers at http://{address}/api/health" in line and said in line
    assert "unset PREFECT_API_URL" in line


@pytest.mark.parametrize("url", ["127.0.0.1/api", "file:///proc"])
def test_an_api_of_another_scheme_is_named(url: str, tmp_path: Path) -> None:
    result = ddoq("run", "digits", "--root", tmp_path / "runs", PREFECT_API_URL=url)
    [line] = result.errors.splitlines()
    assert result.code == 1 and f"no Prefect API answers at {url}/health (which is no address of http)" in line


def test_a_server_without_room_says_so(small_disk: Path) -> None:
    result = ddoq("run", "digits", "--root", small_disk / "runs")
    [line] = result.errors.splitlines()
    assert result.code == 1
    assert "make room" in line and ".prefect/server.log" in line


def test_root_and_server_are_for_their_user(finished: tuple[Path, object], tmp_path: Path) -> None:
    root, _ = finished
    assert stat.S_IMODE(root.stat().st_mode) == stat.S_IMODE((root / ".prefect").stat().st_mode) == 0o700
    given = tmp_path / "given"
    given.mkdir(mode=0o755)
    given.chmod(0o755)
    (given / ".prefect").mkdir(mode=0o755)
    assert ddoq("stage", "cluster", "digits", "--root", given).code == 2
    assert stat.S_IMODE(given.stat().st_mode) == 0o755, "a folder that was there stays as open as it was"
    assert stat.S_IMODE((given / ".prefect").stat().st_mode) == 0o700
