"""Two runs of one recipe on one root: `uv run python -m tests.bench.shared` prints a table and, last, one line of JSON.

The recipe is digits with its six methods and short trainings. The second run starts together with the first, or
`--apart` seconds later, or together with one that is killed with all its processes after `--kill-after` seconds. Every
mark that is written is counted, in whichever process. units: of all artifacts at the end, over the three cases;
made_twice: units whose mark was written more than once, with what the killed run had leased at its end (their marks,
if any, may be written again).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from storage.lease import holders
from tests.flows.conftest import SCRIPTS, Command, Result, start

COUNTS = """
import os
from storage.artifact import Artifact

commit = Artifact.commit


def counted(self, unit, *arguments, **named):
    mark = commit(self, unit, *arguments, **named)
    with open(os.environ["DDOQ_COUNTS"], "a") as file:
        file.write(f"{self}/{unit}\\n")
    return mark


Artifact.commit = counted
"""
SETTINGS = {
    "autoencoder.train.num_steps": 60,
    "teacher.num_epochs": 4,
    "prior.train.num_steps": 100,
    "decode.num_steps": 10,
    "train.num_epochs": 20,
}
CASES = ("together", "apart", "first killed")
console = Console(width=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apart", type=float, default=60, help="seconds between the starts of the second case")
    parser.add_argument(
        "--kill-after", type=float, default=60, help="seconds until the first of the third case is killed"
    )
    parser.add_argument("--only", choices=CASES, action="append")
    args = parser.parse_args()
    table = Table("case", "units", "made twice", "in flight at the kill", "seconds")
    total = Counter[str]()
    for case in args.only or CASES:
        with tempfile.TemporaryDirectory() as folder:
            found = run_both(case, Path(folder), args.apart, args.kill_after)
        total.update({name: found[name] for name in ("units", "made_twice")})
        table.add_row(case, *(str(found[name]) for name in ("units", "made_twice", "in_flight", "seconds")))
    console.print(table)
    print(json.dumps(dict(total)))
    raise SystemExit(total["made_twice"] > 0)


def run_both(case: str, folder: Path, apart: float, kill_after: float) -> dict[str, int]:
    """Both runs to their end. Raises AssertionError for one that ends badly."""
    root, counting, begun = folder / "runs", count_in(folder), time.monotonic()
    first = begin(root, counting)
    if case == "apart":
        time.sleep(apart)
    second, in_flight = begin(root, counting), set[str]()
    try:
        if case == "first killed":
            time.sleep(kill_after)
            in_flight = leases_of({process.pid for process in first.alive()}, root)
            first.end()
        for run in (second, *([] if case == "first killed" else [first])):
            check(case, run.result(timeout=3600))
    finally:
        first.end()
        second.end()
    twice = made_twice(folder) - in_flight
    for unit in sorted(twice):
        console.print(f"{case}: {unit} was made more than once")
    units = sum(len(json.loads(path.read_bytes())["units"]) for path in root.glob("*/*/record.json"))
    seconds = round(time.monotonic() - begun)
    return {"units": units, "made_twice": len(twice), "in_flight": len(in_flight), "seconds": seconds}


def leases_of(pids: set[int], root: Path) -> set[str]:
    """What these processes have in work, as <stage>/<digest>/<unit>."""
    artifacts = [path.parent for path in root.glob("*/*/leases")]
    return {
        f"{artifact.parent.name}/{artifact.name}/{held.unit}"
        for artifact in artifacts
        for held in holders(artifact)
        if held.pid in pids
    }


def count_in(folder: Path) -> dict[str, str]:
    """The environment of runs whose every process counts the marks that it writes, in this folder."""
    (folder / "sitecustomize.py").write_text(COUNTS)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "DDOQ_COUNTS": str(folder / "counts")}


def made_twice(folder: Path) -> set[str]:
    """Units whose marks were written more than once by runs that counted here."""
    times = Counter((folder / "counts").read_text().splitlines())
    return {unit for unit in times if times[unit] > 1}


def begin(root: Path, counting: dict[str, str]) -> Command:
    """Start a run that counts."""
    given = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    return start(SCRIPTS / "ddoq", "run", "digits", "--ipc", "3", *given, "--root", root, **counting)


def check(case: str, result: Result) -> None:
    """Raise AssertionError for a run that ended badly."""
    if result.code != 0:
        raise AssertionError(f"{case}: a run ended with {result.code}: {result.errors[-3000:]}")


if __name__ == "__main__":
    main()
