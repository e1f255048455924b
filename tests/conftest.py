"""What tests of several folders need."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

RUNS = {"services", "finished", "commands"}  # fixtures that stand for servers, clusters and whole runs


@pytest.hookimpl(wrapper=True)  # as xdist looks at the groups first of all
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Tests of whole runs are slow, and share what is made once a session: one process has all of them."""
    for item in items:
        if RUNS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.xdist_group("runs"))
        if "pipeline" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("pipeline"))
    yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a full disk needs a file system of its own: not root, or no right to mount one")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
