"""Every block of the pages is run as it stands, in a folder that has what a reader has prepared.

Sizes are tiny by what ddoq offers its users: a prefect.yaml in the folder, whose recipes replace those of that name.
`runs/` is that of the tests' finished run, so that what a page's digits have in common with it is there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from flows.catalogue import load_recipe
from tests.docs.pages import DOCS, Block, blocks
from tests.flows.conftest import IPC, SCRIPTS, TINY, Command, Result, Services, start, wait_until
from tests.miniature import changes, write_images, write_models
from tests.places import REPOSITORY
from tests.storage.sources.test_archives import write_tar

TWO = {"ddoq": {}, "random": {"decode": {"method": "random"}, "weights": "uniform"}}
SMALL = ["images.size_px=16", "minutes=null", "ipc=2", f"methods={json.dumps(TWO)}", "teacher.min_gain=0"]
FOLDER = [*TINY, *(part for setting in SMALL for part in ("--set", setting))]


def tiny(name: str, settings: list[str]) -> dict[str, object]:
    """A deployment of a recipe, as a prefect.yaml has it, with other settings."""
    recipe = load_recipe(name, None, [part for part in settings if part != "--set"]).model_dump(mode="json")
    return {"name": name, "entrypoint": "flows/distill.py:distill", "parameters": {"recipe": recipe}}


def write_catalogue(folder: Path, models: dict[str, Path] | None = None) -> None:
    """A prefect.yaml of tiny recipes."""
    made = [tiny("digits", [f"ipc={IPC}", *TINY]), tiny("folder", FOLDER)]
    if models:
        few = {"methods": {"paper": {"cluster": {"method": "stream"}}, **TWO}, "ipc": 2}
        told = {**changes("imagenet", Path("unset"), models), **few}
        made.append(tiny("imagenet", [f"{name}={json.dumps(value)}" for name, value in told.items()]))
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"deployments": made}, sort_keys=False))


def write_birds(folder: Path) -> None:
    """A folder of class folders, and the same pictures in tars, WebDataset's shards and parquet."""
    rng, rows = np.random.default_rng(0), list[dict[str, object]]()
    shards: dict[str, dict[str, bytes]] = {"train-000": {}, "train-001": {}, "val-000": {}}
    for k, name in enumerate(("finch", "heron", "owl")):
        place = folder / "birds" / name
        place.mkdir(parents=True)
        for i, shard in zip(range(24), 8 * list(shards), strict=True):
            pixels = (60 * k + rng.integers(0, 120, (20, 20, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{i:02}.jpg")
            data = (place / f"{i:02}.jpg").read_bytes()
            shards[shard] |= {f"{name}-{i:02}.jpg": data, f"{name}-{i:02}.cls": str(k).encode()}
            rows.append({"image": {"bytes": data, "path": None}, "label": k})
        members = {f"{name}/{file.name}": file.read_bytes() for file in sorted(place.iterdir())}
        write_tar(folder / f"birds-{k}.tar", members)
    for shard, members in shards.items():
        write_tar(folder / "shards" / f"{shard}.tar", members)
    (folder / "parquet").mkdir()
    for split in ("train", "validation"):
        pq.write_table(pa.Table.from_pylist(rows), folder / "parquet" / f"{split}-00000-of-00001.parquet")


def write_sets(folder: Path) -> None:
    """Two distilled sets of somebody else's: class folders, and floats in a file of numpy's."""
    digits = load_digits()
    rows = np.concatenate([np.flatnonzero(digits.target == k)[:IPC] for k in range(10)])
    for i in rows:
        place = folder / "theirs" / str(digits.target[i])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15).astype(np.uint8)).save(place / f"{i}.png")
    np.savez(folder / "floats.npz", images=digits.images[rows], labels=digits.target[rows])


def write_imagenet(folder: Path) -> None:
    """A few classes of tiny photographs, and weights in the published form."""
    write_images(folder / "imagenet", 3, 6)
    models = write_models(folder / "miniature")
    (folder / "models").mkdir()
    models["imagenet"].rename(folder / "models" / "stable-diffusion-v1-5")
    write_catalogue(folder, models)


def copy_packages(folder: Path) -> None:
    """What a clone of the repository has, to be changed."""
    for name in ("flows", "tasks", "storage", "ddoq_core"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


PREPARED: dict[str, Callable[[Path], None]] = {
    "your-own-images": write_birds,
    "somebodys-set": write_sets,
    "imagenet-one-gpu": write_imagenet,
    "adding-a-stage": copy_packages,
}
RUN = [page for page in sorted(DOCS.glob("*.md")) if any(block.language in ("sh", "python") for block in blocks(page))]


@pytest.fixture
def folder(finished: tuple[Path, Result], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where a page's reader is."""
    shutil.copytree(finished[0], tmp_path / "runs", symlinks=True, ignore=shutil.ignore_patterns(".prefect"))
    write_catalogue(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_page(page: Path, folder: Path, services: Services, commands: list[Command]) -> None:
    PREPARED.get(page.stem, lambda _: None)(folder)
    path = os.pathsep.join([str(SCRIPTS), os.environ["PATH"]])
    settings = {"PATH": path, "PYTHONPATH": str(folder), "DDOQ_WORKERS": "1", **services.api}
    if "$DDOQ_CLUSTER" in page.read_text():
        settings |= services.dask
    for block in blocks(page):
        if block.marker == "not run":
            continue
        if block.title or block.language == "diff":
            write(block, folder)
        elif block.language in ("sh", "python"):
            words = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
            command = start(*words, block.text, cwd=folder, **settings)
            commands.append(command)
            if block.marker == "in the background":
                wait_for(command, str(block.told))
            else:
                result = command.result()
                assert result.code == 0, f"{block.text}\n{result.output}{result.errors}"


def write(block: Block, folder: Path) -> None:
    """Write a block's file, or change some by it."""
    if block.title:
        (folder / block.title).write_text(block.text)
    else:
        subprocess.run(["git", "apply", "-"], cwd=folder, input=block.text, text=True, check=True)


def wait_for(command: Command, told: str) -> None:
    """Return as soon as a command has printed a text; what comes later is read and dropped."""
    lines: list[str] = []
    for pipe in (command.process.stdout, command.process.stderr):
        assert pipe
        threading.Thread(target=lines.extend, args=(pipe,), daemon=True).start()
    wait_until(lambda: told in "".join(lines), 120, f"it prints {told!r}")
