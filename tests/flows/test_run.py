"""`ddoq run` from the images to the report, and what a rerun does after a change, damage, or a sudden end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import ot
import pytest
import zarr

from storage.artifact import Artifact
from storage.lease import leased
from tests.flows.conftest import IPC, Command, Result, Services, ddoq, run_tiny, start_tiny, wait_until

ABOVE = ("shard", "view", "autoencoder", "encode", "teacher", "prior", "sample")
BELOW = ("cluster", "decode", "measure", "train", "evaluate", "report")
STAGES = ABOVE + BELOW
MANY = "12"  # images per class: makes clustering and what follows do something new, and for long enough to be cut
LATENT_SIZE = 4 * 8 * 8
STORES = ("encode/latents.zarr", "prototypes-ddoq-0/prototypes.zarr")
Snapshot = dict[str, tuple[int, bytes]]


def artifacts(root: Path, *stages: str) -> dict[str, Path]:
    """Folders of finished artifacts by "<stage>/<digest>"."""
    return {
        f"{path.parent.parent.name}/{path.parent.name}": path.parent
        for stage in stages or STAGES
        for path in (root / stage).glob("*/record.json")
    }


def contents(root: Path, *stages: str) -> dict[str, str]:
    """What each finished artifact holds, as a hash by its record."""
    return {name: json.loads((path / "record.json").read_text())["content"] for name, path in _all(root, *stages)}


def _all(root: Path, *stages: str) -> list[tuple[str, Path]]:
    return sorted(artifacts(root, *stages).items())


def snapshot(root: Path, *stages: str) -> Snapshot:
    """Time and bytes of every file of every artifact."""
    files = [f for _, folder in _all(root, *stages) for f in folder.rglob("*") if f.is_file()]
    return {f.relative_to(root).as_posix(): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}


def changed(before: Snapshot, after: Snapshot) -> set[str]:
    """Names of files that are new, gone or written again."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def ddoq_prototypes(root: Path) -> Path:
    """The artifact of the prototypes of the method ddoq, as its link says."""
    return (root / "digits" / "prototypes-ddoq-0").resolve()


def test_ends_with_tables_and_a_report(finished: tuple[Path, Result]) -> None:
    root, result = finished
    assert result.states == dict.fromkeys(STAGES, "ran")
    assert "top-1 %" in result.output
    page = Path(re.findall(r"^report: (.*)$", result.output, re.MULTILINE)[0])
    assert page == root / "digits" / "report" / "report" / "report.html"
    html = page.read_text()
    outside = re.findall(r"""(?:src|href|srcset|url)\s*[=(]\s*["']?(?!data:|#)[^"'\s>]+""", html)
    assert not outside, "the page is to be read anywhere, without other files"
    assert html.count("data:image/png;base64,") >= 2 * 10 * 3
    assert re.search(r"the teacher recognises\s+\d+ %", html)
    assert html.count('alt="drawn by the prior"') == 100
    table = (page.parent / "results.csv").read_text().splitlines()
    assert len(table) == 3
    assert table[1].startswith("ddoq,convnet-3-32,3,")
    assert not [*root.rglob("*.partial*"), *root.rglob("checkpoint.pt")]


def test_status_tells_what_is_there_and_gc_drops_what_no_link_leads_to(
    finished: tuple[Path, Result], tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    shutil.copytree(finished[0], root, symlinks=True)
    shown = ddoq("status", root)
    assert shown.code == 0
    assert re.search(r"│ decode +│ 2 +│ 0 +│ [\d,]+ +│", shown.output), shown.output
    assert "run: digits, last ended 0:" in shown.output and "nothing is in work" in shown.output
    assert ddoq("gc", root, "--hours", "0").output.split() == ["0", "bytes", "that", "nothing", "leads", "to"]

    (root / "digits" / "report").unlink()
    (report,) = artifacts(root, "report")
    assert report not in ddoq("gc", root).output, "not so soon"
    assert report in ddoq("gc", root, "--hours", "0").output
    with leased(Artifact.open(root / "digits" / "teacher"), [""]):
        refused = ddoq("gc", root, "--hours", "0", "--yes")
        assert f"process {os.getpid()} on" in refused.errors and "in work: teacher/" in ddoq("status", root).output
    assert artifacts(root, "report")
    assert ddoq("gc", root, "--hours", "0", "--yes").output.endswith("bytes dropped\n")
    assert not artifacts(root, "report", "evaluate", "train"), "to these the report alone has led"
    assert len(artifacts(root, *ABOVE, "decode")) == len(artifacts(finished[0], *ABOVE, "decode"))


def test_models_load_with_their_own_libraries(finished: tuple[Path, Result]) -> None:
    from diffusers import AutoencoderKL

    from ddoq_core.decode.transformer import FlowTransformer
    from ddoq_core.train.networks import load_classifier

    root, _ = finished
    links = root / "digits"
    model = AutoencoderKL.from_pretrained(links / "autoencoder" / "model")
    prior = FlowTransformer.from_pretrained(links / "prior" / "model")
    assert prior.config.channels == model.config.latent_channels
    for folder in [links / "teacher", *artifacts(root, "train").values()]:
        assert sum(p.numel() for p in load_classifier(folder / "model").parameters()) > 0


def test_the_measures_are_those_of_the_stores(finished: tuple[Path, Result]) -> None:
    links = finished[0] / "digits"
    latents, found = (zarr.open_group(links / name, mode="r") for name in STORES)
    distances, sizes = [], []
    for name in map(str, range(10)):
        z = latents[name]["latents"][:].astype(np.float64).reshape(-1, 1, LATENT_SIZE)
        points = found[name]["centroids"][:].reshape(1, IPC, -1)
        w = np.sqrt(found[name]["counts"][:])
        cost = np.square(z - points).sum(axis=2)
        distances.append(np.sqrt(ot.emd2(np.full(len(z), 1 / len(z)), w / w.sum(), cost)))
        sizes.append(w.sum() ** 2 / np.square(w).sum())
    row = json.loads((links / "report" / "report" / "results.json").read_text())[0]
    assert row["w2"] == pytest.approx(np.mean(distances), rel=1e-4)
    assert row["n_eff"] == pytest.approx(np.mean(sizes))
    assert row["gradient"] > 0


def test_second_run_does_nothing(finished: tuple[Path, Result]) -> None:
    root, first = finished
    before = snapshot(root)
    second = run_tiny(root)
    assert second.code == 0, second.errors
    assert second.states == dict.fromkeys(STAGES, "cached")
    assert not changed(before, snapshot(root))
    assert second.seconds < first.seconds


def test_other_ipc_reuses_what_does_not_depend_on_it(root: Path, services: Services) -> None:
    before = snapshot(root)
    result = run_tiny(root, "--ipc", "2", **services.both)
    assert result.code == 0, result.errors
    assert result.states == dict.fromkeys(ABOVE, "cached") | dict.fromkeys(BELOW, "ran")
    after = snapshot(root)
    assert not changed(before, after) & before.keys(), "artifacts of the former settings stay as they were"
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == set(BELOW)


@pytest.mark.parametrize("way", ["by hand", "by ddoq forget"])
def test_dropped_class_is_made_again_alone(way: str, root: Path, services: Services) -> None:
    before, dropped = snapshot(root), ddoq_prototypes(root)
    if way == "by hand":
        store = dropped / "prototypes.zarr"
        (store / "7").rename(store / ".7.0badcafe.partial")  # a write that was cut off looks like this
    else:
        told = ddoq("forget", root / "digits" / "prototypes-ddoq-0", "7")
        assert told.code == 0, told.errors
        assert "unit 7" in told.output
    result = run_tiny(root, **services.both)
    assert result.code == 0, result.errors
    _assert_only_class_was_made(result, dropped, "7", before, snapshot(root))


def test_flipped_bit_is_named_and_repaired(root: Path, services: Services) -> None:
    before, damaged = snapshot(root), ddoq_prototypes(root)
    chunk = next(p for p in (damaged / "prototypes.zarr" / "4" / "centroids" / "c").rglob("*") if p.is_file())
    at, data = chunk.stat(), bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    os.utime(chunk, ns=(at.st_atime_ns, at.st_mtime_ns))  # as a failing disk does it: size and time say nothing
    told = ddoq("verify", root)
    assert told.code == 1
    assert f"cluster/{damaged.name}, unit 4, file {chunk.relative_to(damaged)}" in told.output
    assert "1 damaged files" in told.output
    result = run_tiny(root, **services.both)
    assert result.code == 0, result.errors
    _assert_only_class_was_made(result, damaged, "4", before, snapshot(root))
    assert ddoq("verify", root).code == 0


def _assert_only_class_was_made(result: Result, folder: Path, name: str, before: Snapshot, after: Snapshot) -> None:
    artifact = f"cluster/{folder.name}"
    root = f"{artifact}/prototypes.zarr/zarr.json"  # bare while a class is missing, and then what it was
    mine = (f"{artifact}/prototypes.zarr/{name}/", root, f"{artifact}/marks/{name}.json", f"{artifact}/record.json")
    assert {stage: state for stage, state in result.states.items() if state != "cached"} == {
        "cluster": "ran 1, cached 1"
    }
    again = changed(before, after)
    assert again
    assert all(path.startswith(mine) for path in again)
    assert all(before[path][1] == after[path][1] for path in again if "prototypes.zarr" in path), "bit-identical"


def test_stored_labels_are_a_stage_between_the_teacher_and_the_students(root: Path, services: Services) -> None:
    result = run_tiny(root, "--set", "train.labels=stored", **services.both)
    assert result.code == 0, result.errors
    ran = {stage for stage, state in result.states.items() if state == "ran"}
    assert ran == {"label", "train", "evaluate", "report"}
    assert len(artifacts(root, "label")) == 2, "one for each method's pictures"
    again = run_tiny(root, "--set", "train.labels=stored", "--set", "train.temperature=4", **services.both)
    assert again.states["label"] == "cached", "students of another temperature learn from the same labels"
    assert {again.states["train"], again.states["report"]} == {"ran"}


def test_a_student_is_known_by_its_protocols_numbers_not_by_its_name(root: Path, services: Services) -> None:
    as_quick = ("protocol=fkd", "batch_size=128", "learning_rate=0.002", 'augmentation={"shift_px": 2}')
    changes = [part for setting in as_quick for part in ("--set", f"train.{setting}")]
    result = run_tiny(root, *changes, **services.both)
    assert result.code == 0, result.errors
    ran = {stage for stage, state in result.states.items() if state == "ran"}
    assert ran == {"view", "evaluate", "report"}, (
        "the same students, shown the centres of the held-out images as fkd does"
    )


def test_class_labels_need_no_teacher(root: Path, services: Services) -> None:
    shutil.rmtree(root / "teacher")
    changes = ("--set", "train.protocol=hard", "--set", "train.weights_in=sampling")
    result = run_tiny(root, *changes, **services.both)
    assert result.code == 0, result.errors
    assert "teacher" not in result.states and result.states["train"] == "ran"


def test_the_pictures_are_exported(finished: tuple[Path, Result], tmp_path: Path) -> None:
    root, _ = finished
    told = ddoq("export", "digits", "--to", "torch", "--out", tmp_path / "set", "--root", root)
    assert told.code == 0, told.errors
    assert "30 pictures with soft labels" in told.output
    assert {p.name for p in (tmp_path / "set").iterdir()} == {"distilled.pt", "set.json", "README.md"}
    plain = ddoq("export", (root / "digits/images-random-0").resolve(), "--to", "imagefolder", "--out", tmp_path / "i")
    assert plain.code == 0, plain.errors
    assert len(list((tmp_path / "i/train").rglob("*.png"))) == 30
    wrong = ddoq("export", "digits", "--to", "zip", "--out", tmp_path / "z", "--root", root)
    assert wrong.code == 2 and "unknown format 'zip'" in wrong.errors


MOMENTS = {
    "the server starts": ".prefect/server.log",
    "the autoencoder is in training": "autoencoder/*/progress/*.json",
    "some classes are encoded": "encode/*/marks/*/*.json",
    "some classes are clustered": "cluster/*/marks/*.json",
    "some classes are decoded": "decode/*/marks/*.json",
    "a student is trained": "train/*/record.json",
}


def test_killed_again_and_again(
    finished: tuple[Path, Result], services: Services, tmp_path: Path, commands: list[Command]
) -> None:
    uninterrupted, _ = finished
    root = tmp_path / "runs"
    shutil.copytree(uninterrupted / ".prefect", root / ".prefect")
    elsewhere = ("the server starts", "some classes are encoded")  # below, and in test_encode
    for moment in (name for name in MOMENTS if name not in elsewhere):
        own_server = moment == "some classes are clustered"
        command = start_tiny(root, "--workers", "2", **({} if own_server else services.api))
        commands.append(command)
        wait_for_new(command, root, MOMENTS[moment], moment)
        command.process.kill()
        wait_until(lambda command=command: not command.alive(), 15, f"all processes end, killed when {moment}")
        assert not (root / "digits").exists(), "links are for finished runs"
    result = run_tiny(root, **services.both)
    assert result.code == 0, result.errors
    assert result.states["shard"] == "cached"
    stages = [stage for stage in STAGES if stage != "report"]  # which shows times
    left = [p for p in root.rglob("*.partial") if not p.name.startswith(".record.json.")]
    assert not left, "zarr would show what a cut-off write left as a class"
    assert artifacts(root).keys() == artifacts(uninterrupted).keys()
    assert contents(root, *stages) == contents(uninterrupted, *stages)
    for name, folder in artifacts(root, "cluster").items():
        files = [f.relative_to(folder) for f in (folder / "prototypes.zarr").rglob("*") if f.is_file()]
        assert files
        for file in files:
            assert (folder / file).read_bytes() == (uninterrupted / name / file).read_bytes(), file


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGTERM, "the server starts"), (signal.SIGINT, "some classes are clustered")],
)
def test_stopped_by_a_signal(number: signal.Signals, moment: str, root: Path, commands: list[Command]) -> None:
    finished_before = artifacts(root)
    command = start_tiny(root, "--ipc", MANY)
    commands.append(command)
    wait_for_new(command, root, MOMENTS[moment], moment)
    if number == signal.SIGINT:
        os.killpg(command.process.pid, number)  # as Ctrl-C does
    else:
        command.process.send_signal(number)
    result = command.result(timeout=60)
    assert result.code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], result.errors
    lines = [line for line in result.errors.splitlines() if not re.fullmatch(r"\w+: \d+/\d+ done", line)]
    assert len(lines) == 1, result.errors
    assert "run the same command again" in lines[0]
    wait_until(lambda: not command.alive(), 15, "no process is left")
    assert artifacts(root).keys() >= finished_before.keys()


def wait_for_new(command: Command, root: Path, sign: str, what: str) -> None:
    """Return as soon as the running command has made a file like the sign."""
    before = set(root.glob(sign))
    began = time.time_ns()

    def new() -> bool:
        if command.process.poll() is not None:
            pytest.fail(f"ended before {what}: {command.result().errors}")
        return any(p not in before or p.stat().st_mtime_ns > began for p in root.glob(sign))

    wait_until(new, 120, what)
