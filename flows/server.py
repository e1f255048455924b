"""A Prefect API for one command: the one at PREFECT_API_URL, or a server of our own on loopback.

Must be entered before Prefect is imported, as Prefect reads its settings once.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import UserError

START_SECONDS = 120
QUIET = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "DO_NOT_TRACK": "1",
}


class ServerError(UserError, RuntimeError):
    """The Prefect server did not come up."""

    exit_code = 1


class Server:
    """Our own Prefect server, its data under `<root>/.prefect`, or nothing where PREFECT_API_URL is set."""

    def __init__(self, root: Path) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        if os.environ.get("PREFECT_API_URL"):
            return
        home = root.absolute() / ".prefect"
        home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(home)
        port = _free_port()
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        self.log = home / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def wait(self) -> None:
        """Return when the API answers. Raises ServerError with the last line of the server's log."""
        url = f"{os.environ['PREFECT_API_URL']}/health"
        limit = time.monotonic() + START_SECONDS
        while time.monotonic() < limit:
            if self.process is not None and self.process.poll() is not None:
                lines = self.log.read_text(errors="replace").strip().splitlines()
                last = lines[-1] if lines else "without a word"
                raise ServerError(f"the Prefect server ended at its start ({last}); see {self.log}")
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                if self.process is None:
                    raise ServerError(f"no Prefect API answers at {url}: start it, or unset PREFECT_API_URL") from None
                time.sleep(0.2)
        raise ServerError(f"the Prefect server did not answer at {url} within {START_SECONDS} s; see {self.log}")

    def stop(self) -> None:
        """End the server and all that it started."""
        if self.process is None:
            return
        for stop in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                os.killpg(self.process.pid, stop)
            try:
                self.process.wait(timeout=10)
                return
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def prefect_server(root: Path) -> Iterator[Server]:
    """A server that is starting; it ends with the block, whatever happens in it."""
    server = Server(root)
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """Linux: end the server also when this process is killed by force."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
