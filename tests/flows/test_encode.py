"""The stage encode on a folder of pictures: cut off, short of a worker, damaged, out of disk, and read by others."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from pathlib import Path

import dask.array
import numpy as np
import pytest
import torch
import zarr
from diffusers import AutoencoderKL
from PIL import Image

from tests.flows.conftest import SCRIPTS, Command, Result, Services, ddoq, start, wait_until

CLASSES, IMAGES, SIZE_PX = 24, 60, 32
MARKS = "encode/*/marks/*/*.json"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of PNG files, and beside them an autoencoder with random weights that takes its time."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, number, c in ((s, n, c) for s, n in (("train", IMAGES), ("val", 2)) for c in range(CLASSES)):
        place = folder / "images" / split / f"class {c:02d}"
        place.mkdir(parents=True)
        for k in range(number):
            pixels = rng.integers(0, 256, (4, 4, 3)).repeat(10, 0).repeat(12, 1).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{k}.png")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    AutoencoderKL(**blocks, block_out_channels=(64, 64), layers_per_block=2).save_pretrained(folder / "vae")
    return folder


def settings(pictures: Path) -> list[str]:
    weights = json.dumps({"weights": str(pictures / "vae")})
    values = (
        f"data.path={pictures / 'images'}",
        f"images.size_px={SIZE_PX}",
        f"autoencoder={weights}",
        "prior.train.flip=false",  # one store of latents
        "data.tune_fraction=0",
        "ipc=1",
    )
    return [part for value in values for part in ("--set", value)]


def stage(name: str, pictures: Path, root: Path, services: Services, *more: str) -> Result:
    return ddoq("stage", name, "folder", *settings(pictures), "--root", root, *more, **services.both)


ALONE = """
import sys
from pathlib import Path
from flows.catalogue import load_recipe
from tasks import autoencoder, encode
from tasks.inputs.data import shard_artifact
from tasks.inputs.stores import indexed

recipe = load_recipe("folder", None, sys.argv[2:])
shard, _ = indexed(shard_artifact(Path(sys.argv[1]), recipe.data))
work = encode.plan(recipe, shard, autoencoder.plan(recipe, shard).artifact)
for batch in work.batches:
    work.task.fn(work.artifact, *work.arguments, *batch)
"""


def start_encode_alone(pictures: Path, root: Path) -> Command:
    """Start the tasks of the stage one after the other in one process, which is at work the sooner."""
    return start(sys.executable, "-c", ALONE, root, *settings(pictures)[1::2])


def start_encode(pictures: Path, root: Path, services: Services) -> Command:
    """Start the stage with two worker processes of its own."""
    command = ("stage", "encode", "folder", *settings(pictures), "--root", root, "--workers", "2")
    return start(SCRIPTS / "ddoq", *command, **services.api)


@pytest.fixture(scope="module")
def prepared(pictures: Path, services: Services, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which all that encode reads is complete. Do not change."""
    root = tmp_path_factory.mktemp("prepared") / "runs"
    for name in ("shard", "autoencoder"):
        result = stage(name, pictures, root, services)
        assert result.code == 0, result.errors
    return root


@pytest.fixture(scope="module")
def encoded(pictures: Path, prepared: Path, services: Services, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the latents of an uninterrupted run. Do not change."""
    root = tmp_path_factory.mktemp("encoded") / "runs"
    shutil.copytree(prepared, root)
    result = stage("encode", pictures, root, services)
    assert result.code == 0, result.errors
    return root


def copy(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root, tmp_path / "runs")
    return tmp_path / "runs"


def store_of(root: Path) -> Path:
    [store] = root.glob("encode/*/latents.zarr")
    return store


def files_of(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    """Names of files that are new, gone or other ones; of bytes a failed test shows too many."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def times(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.glob(MARKS)}


def test_killed_at_six_moments_it_computes_no_finished_unit_again_and_ends_bit_identical(
    pictures: Path, prepared: Path, encoded: Path, services: Services, tmp_path: Path, commands: list[Command]
) -> None:
    root, rng = copy(prepared, tmp_path), random.Random(0)
    finished: dict[Path, int] = {}
    for k in range(6):
        whole = k in (0, 3)
        command = start_encode(pictures, root, services) if whole else start_encode_alone(pictures, root)
        commands.append(command)
        began = time.time_ns()
        _wait_until_encoding(command, root, began)
        time.sleep(rng.uniform(0, 0.4))
        command.process.kill()
        wait_until(lambda command=command: not command.alive(), 15, "all processes end")
        now = times(root)
        assert {path: now[path] for path in finished} == finished, "what was finished stayed as it was"
        finished = now
    assert len(finished) < CLASSES, "the last kill came before the end"
    result = stage("encode", pictures, root, services)
    assert result.code == 0, result.errors
    assert times(root).items() >= finished.items()
    assert not changed(files_of(store_of(encoded)), files_of(store_of(root)))
    rows = [zarr.open_array(name / "rows", mode="r")[:] for name in store_of(root).iterdir() if name.is_dir()]
    assert sorted(np.concatenate(rows)) == list(range(CLASSES * IMAGES))


def _wait_until_encoding(command: Command, root: Path, began: int) -> None:
    def encoding() -> bool:
        if command.process.poll() is not None:
            pytest.fail(f"ended before it could be killed: {command.result().errors}")
        return any(p.stat().st_mtime_ns > began for p in (*root.glob(MARKS), *root.glob("encode/*/progress/*.json")))

    wait_until(encoding, 120, "some images are encoded")


def test_a_killed_worker_does_not_end_the_stage(
    pictures: Path, prepared: Path, encoded: Path, services: Services, tmp_path: Path, commands: list[Command]
) -> None:
    root = copy(prepared, tmp_path)
    command = start_encode(pictures, root, services)
    commands.append(command)
    _wait_until_encoding(command, root, time.time_ns())
    workers = [p for p in command.alive() if "spawn_main" in " ".join(p.cmdline())]
    assert len(workers) == 2
    max(workers, key=lambda p: sum(p.cpu_times()[:2])).kill()
    result = command.result()
    assert result.code == 0, result.errors
    assert not changed(files_of(store_of(encoded)), files_of(store_of(root)))


def test_a_flipped_byte_is_named_by_class_and_chunk_and_repaired_alone(
    pictures: Path, encoded: Path, services: Services, tmp_path: Path
) -> None:
    root = copy(encoded, tmp_path)
    before, expected = times(root), files_of(store_of(encoded))
    chunk = store_of(root) / "class 07/latents/c/0/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    told = ddoq("verify", root)
    assert told.code == 1
    assert f"unit class 07/0, file {chunk.relative_to(store_of(root).parent)}, images 0 to 59" in told.output
    result = stage("encode", pictures, root, services)
    assert result.code == 0, result.errors
    assert {path.parent.name for path, when in times(root).items() if before[path] != when} == {"class 07"}
    assert not changed(expected, files_of(store_of(root)))


def test_a_full_disk_ends_in_one_clear_line_and_the_run_goes_on_when_there_is_room(
    pictures: Path, prepared: Path, encoded: Path, services: Services, small_disk: Path
) -> None:
    root = copy(prepared, small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(3_500_000))
    full = stage("encode", pictures, root, services)
    assert full.code == 1
    told = [line for line in full.errors.splitlines() if " done" not in line]
    lines = [line for line in told if "whoever reaches" not in line]  # a warning of the scheduler, which has no TLS
    assert len(lines) == 1 and "No space left on device" in lines[0] and "make room" in lines[0], full.errors
    ballast.unlink()
    again = stage("encode", pictures, root, services)
    assert again.code == 0, again.errors
    assert not changed(files_of(store_of(encoded)), files_of(store_of(root)))


def test_dask_reads_a_class_as_one_array(encoded: Path) -> None:
    z = dask.array.from_zarr(store_of(encoded) / "class 03" / "latents")
    assert z.shape == (IMAGES, 4, SIZE_PX // 2, SIZE_PX // 2) and z.dtype == np.float16
    plain = zarr.open_group(store_of(encoded), mode="r")["class 03"]["latents"][:]
    assert float(z.astype("float32").mean().compute()) == pytest.approx(float(plain.astype(np.float32).mean()))


def test_an_unfinished_store_says_which_units_are_missing(encoded: Path, tmp_path: Path) -> None:
    root = copy(encoded, tmp_path)
    folder = store_of(root).parent
    (folder / "record.json").unlink()
    (folder / "marks/class 05/0.json").unlink()
    text = ddoq("inspect", folder).output
    assert "not complete, 23 units so far" in text
    assert "units: 24" in text and "missing units: class 05/0" in text
    assert "latents.zarr: 24 classes" in text and "class 00: latents (60, 4, 16, 16) float16" in text


def test_a_prior_that_cannot_be_had_ends_the_run_at_once(pictures: Path, services: Services, tmp_path: Path) -> None:
    prior = json.dumps({"kind": "dit", "weights": "nobody/has-this"})
    more = ("--set", f"prior={prior}", "--root", tmp_path / "runs")
    result = ddoq("run", "folder", *settings(pictures), *more, "--workers", "2", **services.api, HF_HUB_OFFLINE="1")
    assert result.code == 1
    assert "prior.weights='nobody/has-this' cannot be used" in result.errors
    assert not list((tmp_path / "runs").glob("encode/*/record.json")), "it was told while others still encoded"
