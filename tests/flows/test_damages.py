"""Every kind of file of a real run × {flipped, truncated, deleted}, with its time restored: found, and made again."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.artifact import Artifact
from storage.files import canonical_json, list_files
from storage.inspection import artifact_folders, unchecked_files, verify_folder
from tasks.inputs.data import shard_artifact
from tasks.inputs.runs import damaged_runs
from tasks.recipe.settings import DataConfig
from tasks.shard import shard
from tests.flows.conftest import Result, Services, ddoq, run_tiny
from tests.flows.test_run import STAGES, contents
from tests.storage.sources.test_sources import make_folder

MARKS_AND_CLASSES = re.compile(r"(?<=marks/)\d+|(?<=\.zarr/)\d+")
KINDS = 81  # at least; more where the recipe makes more


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: dict[str, Callable[[Path], None]] = {"flipped": flip, "truncated": truncate, "deleted": Path.unlink}


def damage(path: Path, how: str) -> None:
    """Harm a file as a failing disk does: where it is still there, its time says nothing."""
    at = path.stat()
    DAMAGES[how](path)
    if path.exists():
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))


def kinds_of(root: Path) -> dict[str, tuple[Path, Path]]:
    """An artifact's folder and the first of its files, by the kind of file: its path without digest, class and unit."""
    found: dict[str, tuple[Path, Path]] = {}
    for folder in artifact_folders(root):
        for file in list_files(folder):
            kind = f"{folder.parent.name}/{MARKS_AND_CLASSES.sub('N', file.relative_to(folder).as_posix())}"
            found.setdefault(kind, (folder, file))
    return found


@pytest.mark.parametrize("how", DAMAGES)
def test_no_damage_to_any_kind_of_file_goes_unseen(root: Path, how: str, tmp_path: Path) -> None:
    kinds = kinds_of(root)
    assert len(kinds) >= KINDS
    assert {f"{stage}/plan.json" for stage in STAGES} < kinds.keys()
    artifacts = {folder: Artifact.open(folder) for folder, _ in kinds.values()}
    unseen = []
    for kind, (folder, file) in kinds.items():
        shutil.copytree(folder, tmp_path / "whole")
        damage(file, how)
        name = file.relative_to(folder).as_posix()
        told = [line for line in verify_folder(folder) if name in line]
        if folder not in artifact_folders(root) or len(told) != 1 or artifacts[folder].is_done():
            unseen.append(kind)
        shutil.rmtree(folder)
        (tmp_path / "whole").rename(folder)
    assert not unseen
    assert not [line for folder in artifact_folders(root) for line in verify_folder(folder)]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_account_of_a_run_is_seen(root: Path, how: str) -> None:
    assert list(damaged_runs(root)) == []
    damage(root / "digits" / "run.json", how)
    assert list(damaged_runs(root)) == ["damaged: digits, file run.json"]


def test_what_no_other_check_sees_is_repaired_by_the_next_run(root: Path, services: Services) -> None:
    before, links = contents(root), root / "digits"
    damage(links / "encode/plan.json", "flipped")
    damage(links / "prior/record.json", "truncated")
    damage(links / "prototypes-ddoq-0/prototypes.zarr/zarr.json", "deleted")
    damage(links / "shard/index/index.parquet", "flipped")
    damage(links / "run.json", "flipped")
    told = ddoq("verify", root)
    assert told.code == 1 and "5 damaged files" in told.output
    for name in ("plan.json", "record.json", "prototypes.zarr/zarr.json", "index/index.parquet", "run.json"):
        assert f"file {name}" in told.output
    result = run_tiny(root, **services.both)
    assert result.code == 0, result.errors
    ran = {stage for stage, state in result.states.items() if state != "cached"}
    assert ran == {"shard"}, "what follows from the rest is written, not computed"
    assert contents(root) == before
    assert ddoq("verify", root).code == 0


def test_an_accuracy_changed_by_hand_is_found_and_not_trusted(root: Path, services: Services) -> None:
    record = next((root / "evaluate").glob("*/record.json"))
    body = json.loads(record.read_text())
    truth, body["facts"]["top1"] = body["facts"]["top1"], 0.999
    record.write_text(json.dumps(body))
    told = ddoq("verify", root)
    assert told.code == 1 and f"damaged: evaluate/{record.parent.name}, file record.json" in told.output
    result = run_tiny(root, **services.both)
    assert result.code == 0, result.errors
    assert json.loads(record.read_text())["facts"]["top1"] == truth
    assert result.states["train"] == "cached"


def test_a_result_that_was_changed_is_not_shown(root: Path, services: Services) -> None:
    damage(root / "digits/report/report/results.json", "flipped")
    told = run_tiny(root, **services.both)
    assert told.code == 1 and "results.json (unit report) is gone or damaged" in told.errors.splitlines()[-1]
    result = run_tiny(root, **services.both)
    assert result.code == 0, result.errors
    assert {stage for stage, state in result.states.items() if state == "ran"} == {"report"}
    assert ddoq("verify", root).code == 0


def test_an_index_that_was_changed_is_read_by_nobody(root: Path, services: Services) -> None:
    damage(root / "digits/shard/index/index.parquet", "flipped")
    told = ddoq("export", "digits", "--to", "torch", "--out", root / "set", "--root", root)
    assert (
        told.code == 2
        and "index/index.parquet (unit index) is gone or damaged" in told.errors
        and "run the recipe again" in told.errors
    )
    assert len(told.errors.splitlines()) == 1 and not (root / "set").exists()
    result = run_tiny(root, **services.both)
    assert result.code == 0, result.errors
    assert result.states["encode"] == "cached" and ddoq("verify", root).code == 0


@pytest.mark.parametrize("store", ["images-ddoq-0/images.zarr/3", "prototypes-ddoq-0/prototypes.zarr/3"])
@pytest.mark.parametrize("how", DAMAGES)
def test_no_fill_value_is_exported(root: Path, store: str, how: str) -> None:
    for file in [file for file in (root / "digits" / store).rglob("c/**/*") if file.is_file()]:
        damage(file, how)
    out = root / "set"
    told = ddoq("export", "digits", "--to", "imagefolder", "--out", out, "--root", root)
    at_once = "images" in store and how != "flipped"  # size and time of all pictures are looked at before
    what = (
        "a damaged file, which `ddoq verify` names: run" if at_once else "(unit 3) is gone or damaged: run the recipe"
    )
    assert told.code == 2 and what in told.errors and len(told.errors.splitlines()) == 1
    assert not out.exists()


def test_a_run_made_before_there_were_checksums_is_complete(root: Path, services: Services) -> None:
    for folder in artifact_folders(root):
        for path in [folder / "plan.json", folder / "record.json", *(folder / "marks").rglob("*.json")]:
            body = json.loads(path.read_text())
            del body["sha256"]
            path.write_bytes(canonical_json(body))
    told = ddoq("verify", root)
    assert told.code == 0, told.output
    num = sum(map(unchecked_files, artifact_folders(root)))
    assert num > 90 and f"{num} plans, marks and records were written before" in told.output
    result = run_tiny(root, **services.both)
    assert set(result.states.values()) == {"cached"}, result.errors


def test_verify_touches_no_photographs(tmp_path: Path, finished: tuple[Path, Result]) -> None:
    data = tmp_path / "marks"
    for folder in ("birds/marks", "0123456789ab/marks", "birds/0123456789ab/marks"):
        (data / folder).mkdir(parents=True)
        (data / folder / "1.png").write_bytes(b"a photograph")
        (data / folder / "about.json").write_text('{"taken": "in May"}')
    before = list_files(tmp_path)
    for place in (data, data / "birds", data / "birds" / "0123456789ab"):
        for verb in ("verify", "forget"):
            told = ddoq(verb, place)
            assert told.code == 2 and len(told.errors.splitlines()) == 1, told.output
    assert list_files(tmp_path) == before


def test_to_forget_much_is_asked_about(root: Path) -> None:
    folder = (root / "digits" / "prototypes-ddoq-0").resolve()
    for units in ([], ["1", "2", "3", "4"]):
        told = ddoq("forget", folder, *units)
        assert told.code == 2 and len(told.errors.splitlines()) == 1
        what = f"cluster/{folder.name}: {'4 of 10 units' if units else 'all of it, 10 units'}"
        assert what in told.errors and "bytes?" in told.errors and "--yes" in told.errors
        assert len(list((folder / "marks").iterdir())) == 10
    assert ddoq("forget", folder, "1", "2", "3").code == 0
    assert len(list((folder / "marks").iterdir())) == 7
    assert ddoq("forget", folder, "--yes").code == 0
    assert not folder.exists()


def test_source_images_of_other_bytes_are_named(tmp_path: Path) -> None:
    images = make_folder(tmp_path / "set", ("train", "val"))
    root, data = tmp_path / "runs", DataConfig(path=str(images))
    shard.fn(shard_artifact(root, data), data)
    whole = ddoq("verify", "--sources", root)
    assert whole.code == 0 and "0 changed images" in whole.output, whole.output
    damage(images / "train/cat/1.png", "flipped")
    assert ddoq("verify", root).code == 0, "the images are no files of the run's"
    told = ddoq("verify", "--sources", root)
    assert told.code == 1 and "1 changed images" in told.output
    assert re.search(
        r"changed: shard/\w{12}, image train/cat/1\.png: other bytes than when it was indexed", told.output
    )
    shutil.rmtree(images)
    gone = ddoq("verify", "--sources", root)
    assert gone.code == 1 and "train/cat/1.png: No such file" in gone.output.replace("\n", "")
