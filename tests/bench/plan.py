"""What `ddoq plan` says against what the run then takes: `uv run python -m tests.bench.plan` prints a table and, last,
one line of JSON.

digits is run as it ships, folder on --path (class folders of photographs) within
--minutes. planned_over_took: by recipe; 1 is what a plan should say. On a machine that does something else besides, it
says little.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.flows.conftest import SCRIPTS, Result, start

SAID = re.compile(r"about ([0-9.,]+) (s|min|h) with")
SECONDS = {"s": 1, "min": 60, "h": 3600}
console = Console(width=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, help="a folder of class folders, for the recipe folder")
    parser.add_argument("--minutes", type=float, default=10)
    args = parser.parse_args()
    cases: dict[str, tuple[str, ...]] = {"digits": ("digits",)}
    if args.path:
        cases["folder"] = ("folder", "--minutes", str(args.minutes), "--set", f"data.path={args.path.absolute()}")
    table, ratios = Table("recipe", "plan took s", "planned s", "run took s", "planned / took"), {}
    for name, given in cases.items():
        with tempfile.TemporaryDirectory() as root:
            plan, run = (carried_out(word, *given, "--root", root) for word in ("plan", "run"))
        planned = said(plan.output)
        ratios[name] = round(planned / run.seconds, 2)
        table.add_row(name, f"{plan.seconds:.0f}", f"{planned:.0f}", f"{run.seconds:.0f}", f"{ratios[name]:.2f}")
    console.print(table)
    print(json.dumps({"planned_over_took": ratios}))


def carried_out(*arguments: str) -> Result:
    """A command's result. Raises SystemExit for one that fails."""
    command = start(SCRIPTS / "ddoq", *arguments)
    try:
        result = command.result(timeout=6 * 3600)
    finally:
        command.end()
    if result.code != 0:
        raise SystemExit(result.errors[-3000:])
    return result


def said(output: str) -> float:
    """Seconds that a plan says."""
    found = SAID.search(output)
    assert found, output
    return float(found[1].replace(",", "")) * SECONDS[found[2]]


if __name__ == "__main__":
    main()
