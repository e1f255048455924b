"""The built package in an environment of its own: complete, and at work in an empty folder and beside strangers."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.flows.conftest import IPC, TINY, Result, environment, start
from tests.places import REPOSITORY

pytestmark = pytest.mark.slow

PACKAGES = ("flows", "tasks", "storage", "ddoq_core")
DATA = {
    "flows/prefect.yaml",
    "tasks/pages/page.html.j2",
    "storage/sources/subset_lists/imagenette.txt",
    *(f"{package}/py.typed" for package in PACKAGES),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist that it was built from."""
    folder = tmp_path_factory.mktemp("dist")
    _call("uv", "build", "--quiet", "--out-dir", folder, REPOSITORY)
    return folder


@pytest.fixture(scope="module")
def command(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ddoq` as installed from the wheel. What it depends on is seen where the tests have it, but not the checkout."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    _call("uv", "venv", "--quiet", "--python", sys.executable, home)
    python = home / "bin" / "python"
    [wheel] = built.glob("*.whl")
    _call("uv", "pip", "install", "--quiet", "--no-deps", "--python", python, wheel)
    [packages] = home.glob("lib/*/site-packages")
    (packages / "tests.pth").write_text(str(Path(np.__file__).parents[1]))
    return home / "bin" / "ddoq"


def _call(*arguments: str | Path) -> None:
    done = subprocess.run(arguments, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _ddoq(command: Path, folder: Path, *arguments: str | Path) -> Result:
    running = start(command, *arguments, cwd=folder)
    try:
        return running.result()
    finally:
        running.end()


def _names(built: Path) -> Iterator[set[str]]:
    [wheel], [source] = built.glob("*.whl"), built.glob("*.tar.gz")
    yield set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(source) as archive:
        yield {member.name.partition("/")[2] for member in archive if member.isfile()}


def test_both_archives_hold_all_that_is_not_code(built: Path) -> None:
    for names in _names(built):
        assert names >= DATA
    [wheel] = built.glob("*.whl")
    assert zipfile.ZipFile(wheel).read("flows/prefect.yaml") == (REPOSITORY / "prefect.yaml").read_bytes()


def test_it_runs_and_exports_in_an_empty_folder(command: Path, tmp_path: Path) -> None:
    assert _ddoq(command, tmp_path, "--version").output.startswith("ddoq ")
    listed = _ddoq(command, tmp_path, "recipes")
    assert listed.code == 0, listed.errors
    assert "imagenet-dit" in listed.output
    run = _ddoq(command, tmp_path, "run", "digits", "--ipc", str(IPC), *TINY)
    assert run.code == 0, run.errors
    written = _ddoq(command, tmp_path, "export", "digits", "--to", "torch", "--out", "set")
    assert written.code == 0, written.errors
    assert (tmp_path / "set" / "distilled.pt").exists()
    again = _ddoq(command, tmp_path, "export", "runs/digits/images-random-0", "--to", "torch", "--out", "other")
    assert again.code == 0, again.errors
