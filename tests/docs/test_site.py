"""The site is built without a warning, where `uv sync --group docs` has installed what builds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import REPOSITORY


def test_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings_handlers.python")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "ddoq_core.cluster.quantize.quantize" in (tmp_path / "site" / "api" / "core.html").read_text()
