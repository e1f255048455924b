"""`ddoq evaluate` and `ddoq compare` of sets that were made elsewhere, our own exports among them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.artifact import Artifact
from tasks.export.choice import choose
from tasks.export.collect import collect
from tasks.export.formats import WRITERS, export
from tests.flows.conftest import IPC, SETTINGS, Result, Services, ddoq
from tests.flows.test_run import artifacts

SEEDS = 2
OWN = [part for k, v in SETTINGS.items() if k not in ("seeds", "methods") for part in ("--set", f"{k}={v}")]


def scored(root: Path) -> dict[str, list[float]]:
    """By cell the accuracy of each seed."""
    rows = json.loads((root / "digits" / "compare" / "comparison" / "results.json").read_text())["scores"]
    return {cell: [row["top1"] for row in rows if row["cell"] == cell] for cell in {row["cell"] for row in rows}}


def random_set(root: Path, out: Path) -> Path:
    """A set by hand: images of the first classes' training, grey floats of another range and bare numbers."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = np.concatenate([np.flatnonzero(digits.target == k)[:IPC] for k in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)])
    out.mkdir()
    torch.save(torch.from_numpy(digits.images[rows]), out / "images.pt")  # (N, 8, 8) float64 in 0 to 16
    torch.save(torch.arange(10).repeat_interleave(IPC), out / "labels.pt")
    (out / "set.json").write_text(json.dumps({"classes": list("3140592687"), "value_range": [0, 16]}))
    return out


@pytest.fixture(scope="module")
def exported(finished: tuple[Path, Result], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny run's pictures in every form."""
    folder = tmp_path_factory.mktemp("exported")
    chosen = choose("digits", finished[0], method="ddoq")
    handout = collect(chosen.decode, chosen.weights, chosen.teacher)
    for form in WRITERS:
        export(handout, form, folder / form)
    return {form: folder / form for form in WRITERS}


@pytest.fixture(scope="module")
def judged(
    finished: tuple[Path, Result],
    exported: dict[str, Path],
    services: Services,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Result]:
    """A root in which they and a set by hand were evaluated after the tiny run."""
    import shutil

    root = tmp_path_factory.mktemp("judged") / "runs"
    shutil.copytree(finished[0], root, symlinks=True)
    sets = {**exported, "by-hand": random_set(root, root.parent / "by-hand")}
    given = [part for name, path in sets.items() for part in ("--given", f"{name}={path}")]
    result = ddoq("evaluate", "digits", *given, "--seeds", str(SEEDS), *OWN, "--root", root, **services.both)
    assert result.code == 0, result.errors
    return root, result


def test_what_we_export_has_the_accuracy_that_it_had(
    judged: tuple[Path, Result], finished: tuple[Path, Result]
) -> None:
    found = scored(judged[0])
    first, *others = (found[form] for form in WRITERS)
    assert all(other == first for other in others)
    report = json.loads((finished[0] / "digits" / "report" / "report" / "results.json").read_text())
    assert first[0] == next(row["top1"][0] for row in report if row["method"] == "ddoq")


def test_no_latents_are_needed_and_what_is_there_is_used(
    judged: tuple[Path, Result], finished: tuple[Path, Result]
) -> None:
    root, result = judged
    assert not {"autoencoder", "encode", "prior", "cluster", "sample"} & result.states.keys()
    assert {result.states[stage] for stage in ("shard", "view", "teacher")} == {"cached"}
    made = artifacts(root, "decode").keys() - artifacts(finished[0], "decode").keys()
    assert len(made) == len(WRITERS) + 1 + SEEDS, "a given set is the same for every seed, random images are not"


def test_each_set_stands_beside_random_images_with_its_interval(judged: tuple[Path, Result]) -> None:
    root, result = judged
    tables = json.loads((root / "digits" / "compare" / "comparison" / "results.json").read_text())
    asked = {row["question"]: row for row in tables["differences"]}
    values = scored(root)
    for name in (*WRITERS, "by-hand"):
        row = asked[f"{name} − random images"]
        difference = np.subtract(values[name], values["random-uniform"])
        assert row["mean"] == pytest.approx(difference.mean()) and row["low"] <= row["mean"] <= row["high"]
        assert f"{name} − random images" in result.output
    means = [row["top1_mean"] for row in tables["results"]]
    assert means == sorted(means, reverse=True), "the best first"
    page = Path(re.findall(r"^report: (.*)$", result.output, re.MULTILINE)[0]).read_text()
    assert "by-hand" in page and str(root.parent) not in page, "a page that can be put online tells no places"


def test_own_labels_and_a_comparison_with_our_methods(
    judged: tuple[Path, Result], exported: dict[str, Path], services: Services
) -> None:
    root, _ = judged
    own = json.dumps({"path": str(exported["torch"]), "labels": "own"})
    given = ("--given", f"mine={exported['torch']}", "--given", f"own={own}")
    more = ("--quantizer", "exact", "--weights", "sqrt", "--pictures", "diffusion", "--pictures", "random")
    result = ddoq("compare", "digits", *given, *more, "--seeds", str(SEEDS), *OWN, "--root", root, **services.both)
    assert result.code == 0, result.errors
    assert {"mine", "own"} <= scored(root).keys()
    students = [Artifact.open(record.parent) for record in root.glob("train/*/record.json")]
    losses = {own: {tuple(s.record().facts["losses"]) for s in students if (s.config["labels"] == "own") is own}
              for own in (True, False)}  # fmt: skip
    assert losses[True] and losses[True].isdisjoint(losses[False]), "other labels"
    assert "mine − DDOQ with exact k-means" in result.output and "mine − own" in result.output
    assert result.states["teacher"] == "cached"


def test_the_cards_command_scores_it_again_with_the_teacher_beside_it(
    finished: tuple[Path, Result], services: Services, tmp_path: Path
) -> None:
    out, root = tmp_path / "handed-on", tmp_path / "elsewhere"
    told = ddoq(
        *(
            "export",
            "digits",
            "--method",
            "ddoq",
            "--to",
            "torch",
            "--with-teacher",
            "--out",
            out,
            "--root",
            finished[0],
        )
    )
    assert told.code == 0, told.errors
    assert "A teacher of ddoq" in (out / "teacher" / "README.md").read_text()
    card = (out / "README.md").read_text()
    report = json.loads((finished[0] / "digits" / "report" / "report" / "results.json").read_text())
    top1 = next(row["top1"] for row in report if row["method"] == "ddoq")
    assert f"top-1 {100 * top1[0]:.1f} %, one seed" in card
    command = re.findall(r"^    (ddoq evaluate .*)$", card, re.MULTILINE)[0]
    again = ddoq(*shlex.split(command)[1:], "--root", root, cwd=out, **services.api)
    assert again.code == 0, again.errors
    assert scored(root)["it"][0] == top1[0]


def test_a_wrong_set_is_refused_before_anything_starts(finished: tuple[Path, Result], tmp_path: Path) -> None:
    def said(*given: str) -> str:
        result: Any = ddoq("evaluate", "digits", *given, "--root", finished[0])
        assert result.code == 2 and result.seconds < 30, result.errors
        return " ".join(result.errors.split())

    assert "name a set, --given theirs=FOLDER" in said()
    assert "has no '=': write --given theirs=FOLDER" in said("--given", "there")
    assert "there is no distilled set at" in said("--given", f"theirs={tmp_path / 'nowhere'}")
    images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    torch.save({"images": images, "labels": labels}, tmp_path / "set.pt")
    assert "bare numbers" in said("--given", f"theirs={tmp_path / 'set.pt'}")
    assert "no picture of 8 classes" in said("--given", f"theirs={tmp_path / 'set.pt'}", "--class-order", "sorted")
