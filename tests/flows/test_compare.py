"""`ddoq compare` on the tiny run: a real comparison that shares what the run has made."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.recipe.matrix import Matrix
from tests.flows.conftest import SETTINGS, Result, Services, ddoq, run_tiny
from tests.flows.test_run import ABOVE, artifacts

IPCS, SEEDS = (1, 3), 2
MATRIX = Matrix(
    ipc=IPCS,
    seeds=tuple(range(SEEDS)),
    quantizers=("exact", "stream"),
    weights=("uniform", "mass"),
    pictures=("diffusion", "medoid", "random"),
    weights_in=("loss", "sampling"),
)


def compare_tiny(root: Path, services: Services) -> Result:
    chosen = MATRIX.model_dump(exclude={"seeds"})
    options = {"quantizers": "--quantizer", "weights_in": "--weights-in"}
    given = [part for k, values in chosen.items() for v in values for part in (options.get(k, f"--{k}"), str(v))]
    settings = [part for k, v in SETTINGS.items() if k not in ("seeds", "methods") for part in ("--set", f"{k}={v}")]
    return ddoq("compare", "digits", *given, "--seeds", str(SEEDS), *settings, "--root", root, **services.both)


@pytest.fixture(scope="module")
def compared(
    finished: tuple[Path, Result], services: Services, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """A root in which the tiny run and then the comparison were made. Do not change."""
    import shutil

    root = tmp_path_factory.mktemp("compared") / "runs"
    shutil.copytree(finished[0], root, symlinks=True)
    result = compare_tiny(root, services)
    assert result.code == 0, result.errors
    return root, result


def tables(root: Path) -> dict[str, list[dict[str, Any]]]:
    return json.loads((root / "digits" / "compare" / "comparison" / "results.json").read_text())


def test_everything_that_cells_share_is_made_once(compared: tuple[Path, Result], finished: tuple[Path, Result]) -> None:
    root, result = compared
    assert {result.states[stage] for stage in ABOVE} == {"cached"}
    made = {
        stage: artifacts(root, stage).keys() - artifacts(finished[0], stage).keys() for stage in ("train", "cluster")
    }
    at_1, at_3 = 3, 1 + 2 * 3 + 2 * 3 + 3  # kinds of pictures; D4M, quantisers × weights for diffusion, medoid, random
    students = SEEDS * (at_1 + at_3)
    assert len(tables(root)["scores"]) == students
    assert len(made["train"]) == students - 1, "random images of seed 0 are the run's own"
    quantised = SEEDS * (len({"exact", "random"}) + len({"exact", "stream", "stream-d4m", "random"}))
    assert len(made["cluster"]) == quantised - 2, "exact and random of seed 0 are the run's own"


def test_its_numbers_are_those_of_the_students(compared: tuple[Path, Result]) -> None:
    root, _ = compared
    found, scores = (
        tables(root),
        pq.read_table(root / "digits" / "compare" / "comparison" / "scores.parquet").to_pylist(),
    )
    evaluated = {
        json.loads((path / "metrics" / "metrics.json").read_text())["top1"]
        for path in artifacts(root, "evaluate").values()
    }
    assert {row["top1"] for row in scores} <= evaluated
    assert all((root / row["images"] / "record.json").exists() for row in scores)
    for row in found["results"]:
        own = [s["top1"] for s in scores if (s["ipc"], s["cell"]) == (row["ipc"], row["cell"])]
        assert row["top1_mean"] == pytest.approx(sum(own) / SEEDS)
        assert row["top1_low"] <= row["top1_mean"] <= row["top1_high"]
    at = {(row["ipc"], row["cell"]): row for row in found["results"]}
    exact, uniform = at[3, "exact-mass-diffusion"], at[3, "exact-uniform-diffusion"]
    assert exact["w2"] < uniform["w2"], "masses are the best weights in W2"
    assert at[3, "exact-mass-by-sampling-diffusion"]["w2"] == exact["w2"]
    assert exact["n_eff"] < uniform["n_eff"] == pytest.approx(3)
    assert at[1, "exact-uniform-diffusion"]["w2"] > exact["w2"]
    assert {row["stage"] for row in found["cost"]} >= {"encode", "cluster", "decode", "measure", "train", "evaluate"}


def test_it_says_what_it_found(compared: tuple[Path, Result]) -> None:
    _, result = compared
    page = Path(re.findall(r"^report: (.*)$", result.output, re.MULTILINE)[0])
    html = page.read_text()
    assert not re.findall(r"""(?:src|href|srcset|url)\s*[=(]\s*["']?(?!data:|#)[^"'\s>]+""", html)
    assert html.count("data:image/png;base64,") == 3
    assert "D4M − random images" in html and "not run" in html and "weights_in: sampling − loss" in html
    for name in ("scores.csv", "results.csv", "differences.csv", "cost.csv", "accuracy.png"):
        assert (page.parent / name).stat().st_size > 100
    assert "top-1 %" in result.output and "mass by sampling" in result.output


def test_again_nothing_is_done_and_a_run_keeps_the_link(compared: tuple[Path, Result], services: Services) -> None:
    root, _ = compared
    again = compare_tiny(root, services)
    assert again.code == 0, again.errors
    assert {again.states[stage] for stage in (*ABOVE, "cluster", "decode", "measure", "train", "compare")} == {"cached"}
    assert run_tiny(root, **services.both).code == 0
    assert tables(root)["results"]
