"""Two runs of one recipe that start together on a new root (a minute apart, or with a kill: tests/bench/shared.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.shared import count_in, made_twice
from tests.flows.conftest import Command, start_tiny
from tests.flows.test_run import artifacts

pytestmark = pytest.mark.slow


def test_both_end_well_and_every_unit_is_made_once(tmp_path: Path, commands: list[Command]) -> None:
    root, counting = tmp_path / "runs", count_in(tmp_path)
    commands.extend(start_tiny(root, **counting) for _ in range(2))
    for result in (command.result() for command in commands):
        assert result.code == 0, result.errors
    assert made_twice(tmp_path) == set()
    assert len(artifacts(root, "train")) == 2  # those of the two methods
