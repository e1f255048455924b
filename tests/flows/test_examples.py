"""The examples that read what a run has made; the student of docs/use-the-set.md is the one in examples/."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.flows.conftest import Result, ddoq
from tests.places import REPOSITORY


def run_example(name: str, *arguments: str | Path, cwd: Path) -> str:
    command = [sys.executable, str(REPOSITORY / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_the_student(finished: tuple[Path, Result], tmp_path: Path) -> None:
    out = tmp_path / "digits-distilled"
    assert ddoq("export", "digits", "--to", "torch", "--out", out, "--root", finished[0]).code == 0
    losses = [float(x) for x in re.findall(r"loss ([\d.]+)", run_example("student.py", cwd=tmp_path))]
    assert len(losses) == 20 and losses[-1] < losses[0]


def test_the_page_shows_the_student() -> None:
    shown = re.findall(r"```python\n(import torch\n.*?)```", (REPOSITORY / "docs" / "use-the-set.md").read_text(), re.S)
    code = (REPOSITORY / "examples" / "student.py").read_text()
    assert len(shown) == 1
    assert [line for line in code.splitlines() if "print(" not in line][2:] == shown[0].splitlines()


def test_latents_in_xarray(finished: tuple[Path, Result], tmp_path: Path) -> None:
    told = run_example("latents.py", finished[0] / "digits" / "encode" / "latents.zarr", cwd=tmp_path)
    assert "'channel': 4, 'height': 8, 'width': 8" in told
    spread = [float(x) for x in told.split("channel:")[1].split()]
    assert len(spread) == 4 and min(spread) > 0
