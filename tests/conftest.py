"""What tests of several folders need."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("ours", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("ours")

RUNS = {"services", "finished", "commands"}  # fixtures that stand for servers, clusters and whole runs


@pytest.hookimpl(tryfirst=True)  # before the marks are asked for
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of whole runs are slow."""
    for item in items:
        if RUNS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


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
