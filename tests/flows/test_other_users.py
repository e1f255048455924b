"""Another user of the machine reaches nothing of a run: no scheduler, no worker, no API, no database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import Command, start_tiny, wait_until
from tests.flows.test_run import MANY, MOMENTS

NOBODY = 65534
STRANGER = """
import json, socket, sys, urllib.error, urllib.request
ports, files, pids = json.load(sys.stdin)

def opened(path):
    try:
        with open(path, "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False

def greeted(port):
    # A Dask server without TLS greets with its versions, a frame's length first.
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.settimeout(2)
        try:
            return bool(connection.recv(8))
        except OSError:
            return False

def asked(port, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except Exception as error:
        return type(error).__name__

paths = {"/api/flow_runs/filter": b"{}", "/api/admin/settings": None, "/info/main/workers.html": None, "/metrics": None}
json.dump({
    "greeted": [port for port in ports if greeted(port)],
    "answered": {f"{port}{path}": asked(port, path, body) for port in ports for path, body in paths.items()},
    "read": [name for name in [*files, *(f"/proc/{pid}/environ" for pid in pids)] if opened(name)],
}, sys.stdout)
"""


def ask_as_nobody(ports: list[int], files: list[str], pids: list[int]) -> dict[str, object]:
    """What a user of no rights finds open."""
    base = Path(sys.base_prefix) / "bin" / "python3"
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    python = str(base) if _may_run(base) else "/usr/bin/python3"
    done = subprocess.run(
        [*command, python, "-I", "-c", STRANGER],
        input=json.dumps([ports, files, pids]),
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"]},
        timeout=120,
        check=False,
    )
    if not done.stdout:
        pytest.skip(f"no Python that another user may run: {done.stderr.strip().splitlines()[-1:]}")
    return dict(json.loads(done.stdout))


def _may_run(program: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in [program.resolve(), *program.resolve().parents])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_is_not_let_in(root: Path, commands: list[Command]) -> None:
    for folder in [root, *root.parents]:  # all but what the run itself closes is open
        if folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    command = start_tiny(root, "--ipc", MANY, "--workers", "2")
    commands.append(command)
    began = set(root.glob(MOMENTS["some classes are clustered"]))
    wait_until(lambda: set(root.glob(MOMENTS["some classes are clustered"])) - began, 120, "clustering")
    processes = command.alive()
    sockets = [c.laddr for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    ports = sorted({port for _, port in sockets})
    files = [str(path) for path in (root / ".prefect").rglob("*") if path.is_file()]
    assert len(ports) >= 4 and any(name.endswith("prefect.db") for name in files), "server, scheduler, two workers"
    found = ask_as_nobody(ports, files, [process.pid for process in processes])
    assert {address for address, _ in sockets} == {"127.0.0.1"}
    assert found["greeted"] == [] and found["read"] == []
    answered = found["answered"]
    assert isinstance(answered, dict)
    assert 401 in answered.values(), "the server is among the ports"
    assert not {key: said for key, said in answered.items() if said == 200}
    assert command.result().code == 0
