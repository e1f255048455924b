"""A Prefect API for one command: the one at PREFECT_API_URL, or a server of our own on loopback.

Must be entered before Prefect is imported, as Prefect reads its settings once.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from storage.errors import UserError
from storage.lease import alone

PORT = 4200  # Prefect's own
START_SECONDS = 120
ANSWER_SECONDS = 2
HEALTHY_BYTES = 16  # more than "true" takes
QUIET = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_CLIENT_MAX_RETRIES": "1",  # with Prefect's own 5, a run ends minutes after a server that is gone
    "DO_NOT_TRACK": "1",
}
ROOM_BYTES = 4 * 2**20  # what a server's database and log take at least


class ServerError(UserError, RuntimeError):
    """The Prefect server did not come up."""

    exit_code = 1


class Server:
    """Our own Prefect server, its data under `<root>/.prefect`, or nothing where PREFECT_API_URL is set.
    Of several on one root, one starts after the other. With pages it is for people too, who are told the secret.

    Loopback is open to all users of a machine, so our own serves only who knows a secret of this run, which its
    processes find in their environment, and its folder can be read by nobody else.
    """

    def __init__(self, root: Path, *, pages: bool = False) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.secret = ""  # of our own
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        if os.environ.get("PREFECT_API_URL"):
            return
        home = root.absolute() / ".prefect"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        port, self.secret = _free_port(PORT if pages else 0), f"ddoq:{secrets.token_urlsafe(32)}"
        os.environ["PREFECT_HOME"] = str(home)
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        os.environ["PREFECT_API_AUTH_STRING"] = os.environ["PREFECT_SERVER_API_AUTH_STRING"] = self.secret
        os.environ["PREFECT_SERVER_UI_ENABLED"] = str(pages).lower()  # in a run, nobody has the secret to log in with
        self.starting = alone(home / "starting.lock")  # two at once would both set up the database
        self.log = home / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603  this Python, and a port
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
        if self.process is None:
            _check_api(url)
            return
        limit = time.monotonic() + START_SECONDS
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                raise ServerError(f"the Prefect server ended at its start ({self._last_words()}); see {self.log}")
            if not _refusal(url):
                self.starting.close()
                return
            time.sleep(0.2)
        raise ServerError(f"the Prefect server did not answer at {url} within {START_SECONDS} s; see {self.log}")

    def _last_words(self) -> str:
        free = shutil.disk_usage(self.log.parent).free
        if free < ROOM_BYTES:
            return f"the disk has {free / 2**20:.1f} MiB left: make room"
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"

    def stop(self) -> None:
        """End the server and all that it started."""
        if self.process is None:
            return
        self.starting.close()
        for stop in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                os.killpg(self.process.pid, stop)
            try:
                self.process.wait(timeout=10)
                return
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def prefect_server(root: Path, *, pages: bool = False) -> Iterator[Server]:
    """A server that is starting; it ends with the block, whatever happens in it."""
    server = Server(root, pages=pages)
    try:
        yield server
    finally:
        server.stop()


def _check_api(url: str) -> None:
    if said := _refusal(url):
        raise ServerError(f"no Prefect API answers at {url} ({said}): start it, or unset PREFECT_API_URL")


def _refusal(url: str) -> str:
    """Why what answers at the address of an API's health is no healthy Prefect API; "" if it is one."""
    if not url.startswith(("http://", "https://")):
        return "which is no address of http"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310  as the scheme is http
            said = answer.read(HEALTHY_BYTES)
    except (OSError, ValueError, HTTPException) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return "" if said.strip() == b"true" else "it is something else"


def _free_port(wanted: int = 0) -> int:
    """The one that is wanted, or any if that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just given back is free
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return _free_port()
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """Linux: end the server also when this process is killed by force."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
