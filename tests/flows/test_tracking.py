"""What a tracker hears of a run: read back from what the real wandb has written, offline."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from flows.tracking import TRACK, tracker
from storage.errors import UsageError
from tests.flows.conftest import Result, ddoq, run_tiny

BLOCK, FULL, LAST = 1 << 15, 1, 4
LATE = '''
"""A tracker that stops in the middle of a run."""
def init(**_): print("it began")
def log(values): raise ConnectionError("the line is dead")
def finish(): print("it ended")
Image = Table = dict
'''


def records(file: Path) -> Iterator[bytes]:
    """What wandb's own file holds: LevelDB's log, in blocks of 32 KiB, behind a header."""
    data, at, whole = file.read_bytes(), 7, b""
    while at < len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (FULL, LAST):
            yield whole
            whole = b""


def history(folder: Path) -> Iterator[dict[str, Any]]:
    """What was logged, in its order."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    for record in map(Record.FromString, records(file)):
        if record.WhichOneof("record_type") == "history":
            entry: dict[str, Any] = {}
            for item in record.history.item:  # a picture's or a table's facts have keys of two parts
                key, *part = item.nested_key or [item.key]
                value = json.loads(item.value_json)
                entry[key] = {**entry.get(key, {}), part[0]: value} if part else value
            yield entry


def facts(root: Path, stage: str) -> list[dict[str, Any]]:
    """Of the records of a stage."""
    return [json.loads(path.read_text())["facts"] for path in root.glob(f"{stage}/*/record.json")]


def test_wandb_hears_what_the_records_say(root: Path, tmp_path: Path) -> None:
    offline = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    result = run_tiny(root, "--track", "wandb", **offline)
    assert result.code == 0, result.errors
    assert "hears no more" not in result.errors and set(result.states.values()) == {"cached"}
    logged = list(history(tmp_path))
    last = {key: value for entry in logged for key, value in entry.items()}
    for method in ("ddoq", "random"):
        name = f"{method}-convnet-3-32-0"
        assert last[f"evaluate/{name}/top1"] in [found["top1"] for found in facts(root, "evaluate")]
        losses = [entry[f"train/{name}/loss"] for entry in logged if f"train/{name}/loss" in entry]
        assert losses in [found["losses"] for found in facts(root, "train")]
        assert last[f"evaluate/{name}/seconds/compute"] > 0
    assert last["teacher/top1"] == facts(root, "teacher")[0]["top1"]

    for key in ("report/results", "report/cost", "report/pictures", "report/results-figure"):
        (file,) = tmp_path.glob(f"wandb/offline-run-*/files/{last[key]['path']}")
        assert file.stat().st_size == last[key]["size"]
    (table,) = tmp_path.glob(f"wandb/offline-run-*/files/{last['report/cost']['path']}")
    told = json.loads(table.read_text())
    stages = [row[told["columns"].index("stage")] for row in told["data"]]
    assert "prior" in stages and "train" in stages


def test_one_that_fails_ends_no_run(root: Path, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(LATE)
    result = run_tiny(root, "--track", "late", PYTHONPATH=str(tmp_path))
    assert result.code == 0
    assert result.errors.count("the tracker hears no more of this run, which goes on (the line is dead)") == 1
    assert "top-1 %" in result.output


@pytest.mark.parametrize(
    ("name", "told"),
    [("no_such_tracker", "No module named 'no_such_tracker': pip install"), ("json", "json has no init, log")],
)
def test_one_that_cannot_be_had_is_refused(
    name: str, told: str, monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, Result]
) -> None:
    refused = ddoq("run", "digits", "--track", name, "--root", finished[0])
    assert refused.code == 2 and told in refused.errors
    monkeypatch.setenv(TRACK, name)
    with pytest.raises(UsageError):
        tracker()


def test_none_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRACK, raising=False)
    assert tracker() is None
