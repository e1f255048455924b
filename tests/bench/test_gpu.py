"""What is measured on a GPU runs to its end on a CPU at tiny sizes, and its checks hold."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from tests.bench.gpu import IPCS, RECIPES, hours_of
from tests.bench.gpu_checks import KILLED_AFTER
from tests.places import REPOSITORY


@pytest.mark.slow
def test_tiny() -> None:
    command = [sys.executable, "-m", "tests.bench.gpu", "--tiny", "--dollars-per-hour", "2"]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=240).stdout
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    parts = ["encode", *(f"cluster, K = {ipc}" for ipc in IPCS), "decode"]
    assert list(found["lines"]) == [*(f"{name}, {part}" for name in RECIPES for part in parts), "train with teacher"]
    for name, line in found["lines"].items():
        assert line["images_per_second"] > 0 and line["share_of_peak"] > 0, name
    for name, costs in found["costs"].items():
        assert math.isclose(costs["dollars"], 2 * costs["all"]), name
    checks = found["checks"]
    assert math.isclose(checks["inertia_over_single"], 1, abs_tol=0.01)
    assert checks["resumed_steps"] == 8 - KILLED_AFTER, "it went on where it was"
    assert checks["resumed"] == checks["repeated"] == 0 or found["device"] != "CPU"
    assert checks["fitted_batch"] == checks["of"] or found["device"] != "CPU", "a CPU's memory is not made short"
    assert checks["picture_difference"] <= 1 or found["device"] != "CPU"


def test_hours() -> None:
    rates = {"imagenet, encode": 100.0, "imagenet, cluster, K = 10": 1000.0, "imagenet, decode": 5.0}
    hours = hours_of({**rates, "train with teacher": 4000.0}, "imagenet", 10, num_epochs=300)
    assert [round(3600 * value) for value in hours.values()] == [12812, 1281, 2000, 750]
