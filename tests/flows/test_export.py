"""`ddoq export` after a real run: every method, by name and by folder, has its own weights and logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from ddoq_core import class_weights
from ddoq_core.images import to_tiles
from ddoq_core.train.accuracy import predict
from ddoq_core.train.networks import load_classifier
from tasks.export.choice import choose
from tasks.export.collect import collect
from tasks.export.formats import export
from tests.flows.conftest import IPC, Services, ddoq, run_tiny

RULES = {"d4m": "uniform", "ddoq": "sqrt", "ddoq-mass": "mass", "mosaic": "sqrt", "power": 0.25, "random": "uniform"}
METHODS = {
    "d4m": {"cluster": {"method": "stream-d4m"}, "weights": "uniform"},
    "ddoq": {},
    "ddoq-mass": {"weights": "mass"},
    "mosaic": {"decode": {"mosaic": 2}},
    "power": {"weights": 0.25},
    "random": {"cluster": {"method": "random"}, "decode": {"method": "medoid"}, "weights": "uniform"},
}
PULLED = {"sampler": "ddim", "centroid_guidance": 0.2}
PEERS: dict[str, dict[str, Any]] = {
    "mgd3": {"decode": {**PULLED, "centroid_guidance_steps": [0, 0.3]}},
    "dmgd": {"decode": {**PULLED, "centroid_guidance_to": "transport", "centroid_guidance_steps": [0.6, 0.9]}},
    "rded": {"decode": {"num_candidates": 2}},
    "manifold": {"cluster": {"method": "divisive"}},
    "bps": {"cluster": {"method": "centre-margin"}, "decode": {"method": "medoid"}},
    "hald": {"hard_phase": [0.0, 0.5], "label_smoothing": 0.8},
    "plain-random": {"decode": {"method": "random"}},
}
SEED = 5


@pytest.fixture(scope="module")
def exported_from(finished: tuple[Path, object], services: Services, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which the tiny run was made with six methods, the ways of others, and another seed."""
    import shutil

    root = tmp_path_factory.mktemp("exports") / "runs"
    shutil.copytree(finished[0], root, symlinks=True)
    changes = ("--set", f"methods={json.dumps({**METHODS, **PEERS})}", "--set", f"seeds=[{SEED}]")
    result = run_tiny(root, *changes, **services.both)
    assert result.code == 0, result.errors
    return root


def test_the_ways_of_others_are_rows_of_the_same_report(exported_from: Path) -> None:
    report = json.loads((exported_from / "digits" / "report" / "report" / "results.json").read_text())
    assert [row["method"] for row in report] == [*METHODS, *PEERS]
    folders = {method: exported_from / "digits" / f"images-{method}-{SEED}" for method in (*METHODS, *PEERS)}
    made = {method: folder.resolve().name for method, folder in folders.items()}
    assert made["hald"] == made["ddoq"], "the same pictures, other labels"
    others = [made[method] for method in ("ddoq", "d4m", "random", *PEERS) if method != "hald"]
    assert len(set(others)) == len(others)
    students = {student.resolve().name for student in (exported_from / "train").iterdir()}
    assert len(students) >= len(report)


@pytest.mark.parametrize("method", RULES)
def test_every_method_has_its_own_weights_and_logits(method: str, exported_from: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = ddoq("export", "digits", "--method", method, "--to", "torch", "--out", out, "--root", exported_from)
    assert told.code == 0, told.errors
    _assert_is_the_methods(exported_from, method, torch.load(out / "distilled.pt", weights_only=True))


@pytest.mark.parametrize("way", ["by link", "by digest"])
@pytest.mark.parametrize("method", RULES)
def test_so_it_has_by_its_folder(method: str, way: str, exported_from: Path, tmp_path: Path) -> None:
    link = exported_from / "digits" / f"images-{method}-{SEED}"
    shared = method in ("ddoq", "ddoq-mass", "power")  # the same pictures: their digest does not say whose they are
    weights = RULES[method] if shared and way == "by digest" else None
    folder = link if way == "by link" else link.resolve()
    export(collect(*choose(str(folder), exported_from, weights=weights)[:3]), "torch", tmp_path / "out")
    _assert_is_the_methods(exported_from, method, torch.load(tmp_path / "out" / "distilled.pt", weights_only=True))


def _assert_is_the_methods(root: Path, method: str, found: dict[str, torch.Tensor]) -> None:
    links = root / "digits"
    prototypes = zarr.open_group(links / f"prototypes-{method}-{SEED}" / "prototypes.zarr", mode="r")
    pictures = zarr.open_group(links / f"images-{method}-{SEED}" / "images.zarr", mode="r")
    weights = [class_weights(prototypes[str(c)]["counts"][:], RULES[method]) for c in range(10)]
    np.testing.assert_allclose(found["weights"], np.concatenate(weights), rtol=1e-6)
    side = 2 if method == "mosaic" else 1
    images = np.concatenate([to_tiles(pictures[str(c)]["images"][:], side) for c in range(10)])
    np.testing.assert_array_equal(found["images"].permute(0, 2, 3, 1), images)
    teacher = load_classifier(links / "teacher" / "model")
    np.testing.assert_array_equal(found["logits"], predict(teacher, images))
    assert len(images) == 10 * IPC * side**2 and pictures["0"]["images"].shape[0] == IPC
