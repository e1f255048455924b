"""How long it takes to be refused: `uv run python -m tests.bench.refusals`. A line each, and as its last line JSON."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.flows.conftest import ddoq
from tests.flows.test_bad_input import REFUSED

FROM_SETTINGS = ("unknown recipe", "misspelt setting", "patches that do not divide", "missing prior", "unknown stage")
FROM_DATA = ("ipc above the smallest class", "missing data", "one ipc above the smallest class")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = {
            kind: {case: _seconds(case, Path(folder) / "runs") for case in cases}
            for kind, cases in (("settings", FROM_SETTINGS), ("data", FROM_DATA))
        }
    for kind, cases in seconds.items():
        for case, time in cases.items():
            print(f"{kind:<10}{case:<36}{time:6.2f} s")
    print(json.dumps(seconds))


def _seconds(case: str, root: Path) -> float:
    result = ddoq(*REFUSED[case][0], "--root", root)
    assert result.code == 2, result.errors
    return round(result.seconds, 2)


if __name__ == "__main__":
    main()
