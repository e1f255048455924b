"""The results on photographs: `python -m tests.bench.photographs cifar10 --root FOLDER --teacher resnet-20-16`.

Runs the recipe by `ddoq run` at each number of images per class, and the stage sample in the eyes of a better teacher,
and writes what they found to docs/results.json, beside the commit and the commands, into the tables of the documents
(see tests.bench.tables), and as two figures, docs/DATA-distilled.png and docs/DATA-drawn.png. All of it resumes.

cifar10     the recipe of that name on the shared copy of CIFAR-10, through TAEF2
imagenette  the recipe `folder` on ImageNette in ILSVRC's split at 64 px, through TAEF2
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from PIL import Image

from storage.artifact import Artifact
from storage.files import write_json
from tasks.inputs.runs import kept_run
from tasks.sample import SAMPLES
from tests.bench.latents import IMAGENETTE, members
from tests.bench.tables import RESULTS, write_documents
from tests.flows.conftest import SCRIPTS
from tests.places import REPOSITORY, SHARED

RANDOM = {"cluster": {"method": "random"}, "decode": {"method": "medoid"}, "weights": "uniform"}
METHODS = {
    "ddoq": {},
    "paper": {"cluster": {"method": "stream"}, "weights": "sqrt-paper"},
    "d4m": {"cluster": {"method": "stream-d4m"}, "weights": "uniform"},
    "selection": {"decode": {"num_candidates": 8}},
    "mosaics": {"decode": {"mosaic": 2}},
    "medoids": {"decode": {"method": "medoid"}},
    "random": RANDOM,
    "medoid-mosaics": {"decode": {"method": "medoid", "mosaic": 2}},
    "random-mosaics": {**RANDOM, "decode": {"method": "medoid", "mosaic": 2}},
}
REAL = ("medoids", "random", "medoid-mosaics", "random-mosaics")
AUTOENCODER = {"weights": str(SHARED / "weights/taef2")}
DATA: dict[str, tuple[str, dict[str, Any]]] = {
    "cifar10": ("cifar10", {
        "data.source": "tar", "data.path": str(SHARED / "data/cifar10/*.tar.gz"), "prior.train.patch_size": 1,
    }),
    "imagenette": ("folder", {
        "images.size_px": 64, "decode.num_candidates": 1, "minutes": None, "teacher.num_epochs": 15,
        "prior.train.num_steps": 10_000, "prior.train.num_layers": 8, "prior.train.head_dim": 64,
        "prior.train.patch_size": 2, "train.num_epochs": 150,
    }),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(DATA))
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--ipc", type=int, nargs="+", default=[10, 1, 50])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--teacher", help="the architecture of another teacher, for the stage sample")
    parser.add_argument("--set", action="append", default=[], help="more settings, as `ddoq run` takes them")
    parser.add_argument("--set-teacher", action="append", default=[], help="settings of the other teacher")
    args = parser.parse_args()
    recipe, own = DATA[args.data]
    if args.data == "imagenette":
        own = {**own, "data.path": str(write_ilsvrc_split(args.root / "images"))}
    methods = {name: METHODS[name] for name in args.methods}
    settings = {**own, "autoencoder": AUTOENCODER, "methods": methods, "seeds": list(range(args.seeds))}
    given = [part for name, value in settings.items() for part in ("--set", f"{name}={_told(value)}")]
    given += [part for setting in args.set for part in ("--set", setting)]
    judged = ["--set", f"teacher.architecture={args.teacher}"] if args.teacher else []
    judged += [part for setting in args.set_teacher for part in ("--set", setting)]
    commands, found = [], {}
    for ipc in args.ipc:
        commands.append(ddoq("run", recipe, "--ipc", str(ipc), *given, root=args.root))
        found[str(ipc)] = read_report(args.root, recipe)
    prior = read_models(args.root, recipe)
    if judged:
        for stage in ("teacher", "sample"):
            commands.append(ddoq("stage", stage, recipe, *given, *judged, root=args.root))
        prior = newest_sample(args.root, args.teacher)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    before = results.get(args.data, {})  # numbers of images per class that were not asked for this time
    found = {**before.get("by_ipc", {}), **found}
    commands = [*dict.fromkeys([*before.get("commands", []), *commands])]
    results[args.data] = {**prior, **summary(found.get("10", {})), "by_ipc": found, "commit": commit()}
    results[args.data]["commands"] = commands
    write_json(RESULTS, results)
    draw(args.root, recipe, args.data)
    write_documents()
    print(json.dumps(results[args.data]))


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def ddoq(*arguments: str, root: Path) -> str:
    """Run a command to its end. Returns it without the places of this machine."""
    subprocess.run([SCRIPTS / "ddoq", *arguments, "--root", root], check=True)
    told = shlex.join(["ddoq", *arguments, "--root", "runs"])
    return told.replace(str(root), "runs").replace(str(SHARED), "../shared")


def read_report(root: Path, recipe: str) -> dict[str, Any]:
    """Rows and differences of the newest run."""
    folder = root / recipe / "report" / "report"
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("results", "differences")}


def draw(root: Path, recipe: str, data: str) -> None:
    """The distilled pictures of the newest run's first method, and what its prior draws from noise, a row per class."""
    shutil.copy(root / recipe / "report" / "report" / "pictures.png", RESULTS.parent / f"{data}-distilled.png")
    run = kept_run(root / recipe)
    assert run is not None
    classes = zarr.open_group(root / run.artifacts["sample"] / SAMPLES, mode="r")
    pictures = np.stack([classes[name]["images"][:] for name in sorted(classes.group_keys())])  # (classes, n, S, S, 3)
    rows, columns, side = pictures.shape[:3]
    sheet = Image.fromarray(pictures.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, 3))
    zoom = max(1, 64 // side)
    sheet.resize((columns * side * zoom, rows * side * zoom), Image.Resampling.NEAREST).save(
        RESULTS.parent / f"{data}-drawn.png"
    )


def read_models(root: Path, recipe: str) -> dict[str, Any]:
    """What the newest run found of its prior, and its teacher."""
    run = kept_run(root / recipe)
    assert run is not None
    return _sampled(Artifact.open(root / run.artifacts["sample"]))


def newest_sample(root: Path, architecture: str) -> dict[str, Any]:
    """The same of the stage sample in the eyes of a teacher of this architecture that was finished last."""
    samples = [Artifact.open(record.parent) for record in root.glob("sample/*/record.json")]
    samples = [s for s in samples if s.parents["teacher"].config["teacher"]["architecture"] == architecture]
    return _sampled(max(samples, key=lambda sample: sample.record().finished))


def _sampled(sample: Artifact) -> dict[str, Any]:
    facts = sample.record().facts
    return {
        "teacher_top1": sample.parents["teacher"].record().facts["top1"],
        **{name: facts["drawn"][name] for name in ("recognised", "frechet", "precision", "recall")},
        "of_training_images": facts["real"],
        "recognised_by_class": facts["recognised"],
        "closest": facts["closest"],
    }


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The best row that is decoded against real images at random and against medoids, and DDOQ against D4M, in points
    of accuracy with the bounds of the 95 % interval."""
    if not report:
        return {}
    decoded = [row for row in report["results"] if row["method"] not in REAL]
    best = max(decoded, key=lambda row: row["top1_mean"])["method"]
    asked = {row["question"]: row for row in report["differences"]}
    pairs = {
        "decoded_minus_random": f"{best} − random",
        "decoded_minus_medoid": f"{best} − medoids",
        "ddoq_minus_d4m": "ddoq − d4m",
    }
    bounds = {"": "mean", "_low": "low", "_high": "high", "_p": "p_holm"}
    points = {
        f"{name}{end}": asked[question][key] * (1 if end == "_p" else 100)
        for name, question in pairs.items()
        for end, key in bounds.items()
    }
    return {"best_decoded": best, **points}


def write_ilsvrc_split(folder: Path) -> Path:
    """ImageNette as train/ and val/ class folders in ILSVRC's split, from its manifest."""
    with (SHARED / "data/imagenette-224/manifest.csv").open() as file:
        split_of = {row["path"].rsplit("/", 1)[-1]: row["ilsvrc_split"] for row in csv.DictReader(file)}
    for path, data in members(IMAGENETTE):
        at = folder / split_of[path.name] / path.parts[-2] / path.name
        if not at.exists():
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_bytes(data)
    return folder


def commit() -> str:
    """The commit that the figures are of."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    return found.stdout.strip()


if __name__ == "__main__":
    main()
