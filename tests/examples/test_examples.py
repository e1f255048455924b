"""Every example runs as it stands, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.places import REPOSITORY


def test_the_quantiser_alone() -> None:
    done = subprocess.run(
        [sys.executable, "examples/quantise.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    rows = re.findall(r"^(\d): inertia (\d+), W2 ([\d.]+), .*\n   weights ((?:[\d.]+ ?){10})$", done.stdout, re.M)
    assert [row[0] for row in rows] == [str(digit) for digit in range(10)]
    for _, inertia, w2, weights in rows:
        assert 10_000 < float(inertia) < 200_000
        assert 8 < float(w2) < 33
        assert abs(sum(map(float, weights.split())) - 10) < 0.06
