"""The checkpoint of a training on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from storage.artifact import Artifact
from tasks.inputs import cached
from tasks.inputs.cached import DiskCheckpoint

STATE: dict[str, Any] = {"step": 3, "losses": [0.5] * 20, "model": {"weight": torch.arange(1000.0)}}


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    monkeypatch.setattr(cached, "SAVE_EVERY_SECONDS", 0.0)
    artifact = Artifact(tmp_path, "teacher", 1, {})
    DiskCheckpoint(artifact).save(lambda: STATE)
    return artifact


def test_a_state_comes_back_in_another_checkpoint(artifact: Artifact) -> None:
    loaded = DiskCheckpoint(artifact).load()
    assert loaded is not None and loaded["step"] == 3 and loaded["losses"] == STATE["losses"]
    assert torch.equal(loaded["model"]["weight"], STATE["model"]["weight"])


def test_a_training_without_a_state_starts_over(tmp_path: Path) -> None:
    assert DiskCheckpoint(Artifact(tmp_path, "teacher", 1, {})).load() is None


@pytest.mark.parametrize("damage", ["empty", "half", "noise", "flipped number"])
def test_a_damaged_state_is_dropped(artifact: Artifact, damage: str) -> None:
    path = artifact.checkpoint_path
    data = bytearray(path.read_bytes())
    at = data.index(torch.arange(500.0, 510.0).numpy().tobytes())
    data[at] ^= 1
    half = bytes(data[: len(data) // 2])
    path.write_bytes({"empty": b"", "half": half, "noise": b"no state" * 99, "flipped number": bytes(data)}[damage])
    assert DiskCheckpoint(artifact).load() is None
    assert not path.exists()


def test_saving_waits_its_time(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, "teacher", 1, {})
    DiskCheckpoint(artifact).save(lambda: STATE)
    assert not artifact.checkpoint_path.exists()


def test_a_slow_save_is_followed_by_a_longer_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, saved_at = [0.0], []
    monkeypatch.setattr(cached.time, "monotonic", lambda: now[0])

    def slow() -> dict[str, Any]:
        saved_at.append(now[0])
        now[0] += 3.0
        return STATE

    checkpoint = DiskCheckpoint(Artifact(tmp_path, "teacher", 1, {}))
    while now[0] < 140:
        now[0] += 1.0
        checkpoint.save(slow)
    assert saved_at == [10.0, 73.0, 136.0], "3 s of each 63 s, a twentieth"
