"""`ddoq plan`: the units that the run then has, what is done left out, nothing of its miniature left behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.plan import Plan, StagePlan, check_disk
from storage.errors import UsageError
from tests.flows.conftest import IPC, TINY, Result, ddoq, run_tiny
from tests.flows.test_run import artifacts

UNITS = re.compile(r"^│ (\w+) +│ +([0-9,]+) +│ +([0-9,]+) +│$", re.MULTILINE)
COSTS = re.compile(r"^│ (\w+) +│ +([0-9,]+) +│ +([0-9.,–]+) +│ +([0-9.,]+) +│ +([0-9,]+) +│$", re.MULTILINE)


def plan_tiny(root: Path, *more: str) -> Result:
    """The plan of the tiny run in a root."""
    result = ddoq("plan", "digits", "--ipc", str(IPC), *TINY, "--root", root, "--probe", "1", *more)
    assert result.code == 0, result.errors
    return result


def units(result: Result) -> dict[str, tuple[int, int]]:
    """Of each stage, how many, and how many of them are done."""
    return {stage: (int(of), int(done)) for stage, of, done in UNITS.findall(result.output)}


@pytest.mark.slow
def test_it_tells_what_the_run_then_does(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    planned = plan_tiny(root)
    listed = artifacts(root)
    assert {name.split("/")[0] for name in listed} == {"shard"}, "only the images are listed"
    assert {path.name for path in root.iterdir()} <= {"shard", "digits", ".logs"}, "nothing is left of the miniature"
    costs = {stage: (flops, float(mib)) for stage, _, flops, mib, _ in COSTS.findall(planned.output)}
    for stage in ("autoencoder", "encode", "teacher", "prior", "decode", "train", "evaluate", "sample"):
        assert costs[stage][0] != "–", f"{stage} has networks, whose operations are counted: {costs}"
    assert re.search(r"about \d+ s with", planned.output)

    run = run_tiny(root)
    assert run.code == 0, run.errors
    assert run.states["shard"] == "cached"
    made = artifacts(root)
    after = units(plan_tiny(root))
    counts, left = ({stage: of for stage, (of, _) in told.items()} for told in (units(planned), after))
    assert counts == {**left, "view": left["view"] + 1}, "a teacher that is there needs no view of its images"
    assert all(of == done for of, done in after.values())
    assert artifacts(root) == made
    assert sum(counts.values()) == sum(_num_units(folder) for folder in made.values())


def _num_units(folder: Path) -> int:
    return len(list((folder / "marks").glob("*"))) or 1


def test_too_small_a_disk_is_refused_with_both_numbers(tmp_path: Path) -> None:
    plan = Plan({"encode": StagePlan("encode", units=1, num_bytes=2**60)})
    with pytest.raises(UsageError, match=r"writes about 1073741824.0 GiB .* has [0-9.]+ GiB left: make room"):
        check_disk(plan, tmp_path)
