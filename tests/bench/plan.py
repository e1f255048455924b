"""What `ddoq plan` says against what the run then takes, and what its progress says is left against what came:
`uv run python -m tests.bench.plan` prints tables and, last, one line of JSON.

digits is run as it ships, folder on --path (class folders of photographs) within --minutes. planned_over_took: by
recipe; left_over_came: by stage, of those that take more than a minute, which a log tells the time left of, by the line
nearest to the stage's middle. 1 is what both should say. On a machine that does something else besides, it says little.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.flows.conftest import SCRIPTS, Result, start

SAID = re.compile(r"about ([0-9.,]+) (s|min|h) with")
DONE = re.compile(r"(\w+): \d+/\d+ done")
LEFT = re.compile(r"(\w+): \d+/\d+, (\d+)%.* (\d+):(\d\d):(\d\d) left")
Lines = list[tuple[float, str]]
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
    progress, left = Table("stage", "done", "left s, as said", "came s", "left / came"), {}
    for name, given in cases.items():
        with tempfile.TemporaryDirectory() as root:
            (plan, _), (run, lines) = (carried_out(word, *given, "--root", root) for word in ("plan", "run"))
        planned = said(plan.output)
        ratios[name] = round(planned / run.seconds, 2)
        table.add_row(name, f"{plan.seconds:.0f}", f"{planned:.0f}", f"{run.seconds:.0f}", f"{ratios[name]:.2f}")
        for stage, (share, told, came) in at_the_middle(lines).items():
            left[f"{name} {stage}"] = round(told / came, 2)
            progress.add_row(f"{name} {stage}", f"{share} %", f"{told:.0f}", f"{came:.0f}", f"{told / came:.2f}")
    console.print(table, progress)
    print(json.dumps({"planned_over_took": ratios, "left_over_came": left}))


def carried_out(*arguments: str) -> tuple[Result, Lines]:
    """A command's result, and each line of its progress with the second it came. Raises SystemExit for one that
    fails."""
    command, lines = start(SCRIPTS / "ddoq", *arguments), Lines()
    assert command.process.stdout and command.process.stderr

    def listen() -> None:
        lines.extend((time.monotonic(), line) for line in command.process.stderr)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        output = command.process.stdout.read()
        code = command.process.wait(timeout=60)
        seconds = time.monotonic() - command.start
        listener.join()
    finally:
        command.end()
    if code != 0:
        raise SystemExit("".join(line for _, line in lines)[-3000:])
    return Result(code, output, "", seconds), lines


def at_the_middle(lines: Lines) -> dict[str, tuple[int, float, float]]:
    """Of each stage that told its time left, the share that was done (%), the seconds it said, and those that came."""
    ends = {found[1]: at for at, line in lines if (found := DONE.match(line))}
    told: dict[str, tuple[int, float, float]] = {}
    for at, line in lines:
        if (found := LEFT.match(line)) and found[1] in ends:
            share, hours, minutes, seconds = (int(part) for part in found.groups()[1:])
            new = (share, 3600 * hours + 60 * minutes + seconds, ends[found[1]] - at)
            told[found[1]] = min(new, told.get(found[1], new), key=lambda one: abs(one[0] - 50))
    return told


def said(output: str) -> float:
    """Seconds that a plan says."""
    found = SAID.search(output)
    assert found, output
    return float(found[1].replace(",", "")) * SECONDS[found[2]]


if __name__ == "__main__":
    main()
