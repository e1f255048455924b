"""`ddoq tune`, a run and `ddoq export` on digits of which some training images are kept for choosing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage.artifact import Artifact
from storage.index import INDEX, Index
from tests.flows.conftest import SETTINGS, Result, Services, ddoq, run_tiny
from tests.flows.test_run import artifacts

KEPT = ("--set", "data.tune_fraction=0.2")
TRIED = ("--strength", "0.5", "--strength", "1", "--guidance-scale", "1.5", "--noise", "class", "--num-candidates", "2")


def tune_tiny(root: Path, services: Services, *more: str) -> Result:
    settings = [part for k, v in SETTINGS.items() if k not in ("seeds",) for part in ("--set", f"{k}={v}")]
    given = (*TRIED, "--seeds", "2", "--ipc", "3", *settings, *more, "--root", root)
    return ddoq("tune", "digits", *given, **services.both)


@pytest.fixture(scope="module")
def tuned(services: Services, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    root = tmp_path_factory.mktemp("tuned") / "runs"
    result = tune_tiny(root, services, *KEPT)
    assert result.code == 0, result.errors
    return root, result


def opened(root: Path, stage: str) -> list[Artifact]:
    return [Artifact.open(folder) for folder in artifacts(root, stage).values()]


def test_it_looks_at_kept_training_images_alone(tuned: tuple[Path, Result]) -> None:
    root, _ = tuned
    assert {artifact.config["split"] for artifact in opened(root, "view")} == {"train", "tune"}
    assert [artifact.config["split"] for artifact in opened(root, "evaluate")] == ["tune"] * 6
    assert not (root / "measure").exists() and not (root / "sample").exists()
    [shard] = opened(root, "shard")
    index = Index.read(shard.path / INDEX)
    images = {evaluated.record().facts["images"] for evaluated in opened(root, "evaluate")}
    assert images == {len(index.rows("tune"))}


def test_it_says_which_settings_are_best_and_what_they_cost(tuned: tuple[Path, Result]) -> None:
    root, result = tuned
    found = json.loads((root / "digits" / "tune.json").read_text())
    rows = found["results"]
    assert [row["top1_mean"] for row in rows] == sorted((row["top1_mean"] for row in rows), reverse=True)
    assert {row["settings"].get("strength") for row in rows} == {0.5, 1.0, None}
    assert all(row["train_seconds"] > 0 and len(row["top1"]) == 2 for row in rows)
    [random] = [row for row in rows if not row["settings"]]
    assert random["minus_random_mean"] == 0 and random["name"] == "random"
    best = next(row for row in rows if row["settings"])
    assert (
        f"best: --set decode.strength={best['settings']['strength']} --set decode.guidance_scale=1.5" in result.output
    )


def test_a_run_prefers_a_row_by_them_and_export_hands_it_out(
    tuned: tuple[Path, Result], services: Services, tmp_path: Path
) -> None:
    root, _ = tuned
    ran = run_tiny(root, *KEPT, **services.both)
    assert ran.code == 0, ran.errors
    assert {ran.states[stage] for stage in ("shard", "autoencoder", "encode", "teacher", "prior")} == {"cached"}
    rows = json.loads((root / "digits" / "report" / "report" / "results.json").read_text())
    preferred = max(rows, key=lambda row: row["tune_mean"])["method"]
    assert f"prefer {preferred}" in ran.output
    told = ddoq("export", "digits", "--to", "torch", "--out", tmp_path / "out", "--root", root)
    assert told.code == 0 and f"of the method {preferred}, which training images kept" in told.output
    assert f"prefer\n{preferred}" in (root / "digits" / "report" / "report" / "report.html").read_text()


def test_without_kept_images_it_says_how_to_keep_some(tmp_path: Path, services: Services) -> None:
    told = tune_tiny(tmp_path / "runs", services)
    assert told.code != 0 and "set data.tune_fraction=0.1" in told.errors
