"""Leases: what one process has in work another leaves to it, until it is made or its maker is gone."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.artifact import Artifact
from storage.clock import Clock
from storage.lease import LEASES, holders, leased, leased_whole, to_make

HOLD = """
import sys, time
from pathlib import Path
from storage.artifact import Artifact
from storage.lease import leased
with leased(Artifact(Path(sys.argv[1]), "stage", 1, {}), sys.argv[2:]) as ours:
    print(ours, flush=True)
    time.sleep(60)
"""
WANTED = {name: f"inputs of {name}" for name in "abc"}


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Artifact(tmp_path, "stage", 1, {})


@contextmanager
def another(artifact: Artifact, *units: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the leases of these units."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(artifact.root), *units], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "True\n"
        try:
            yield process
        finally:
            process.kill()


def make(artifact: Artifact, unit: str) -> None:
    path = artifact.path / unit
    path.write_text(unit)
    artifact.commit(unit, [path], inputs=WANTED[unit], clock=Clock())


def made(artifact: Artifact) -> list[tuple[str, list[str]]]:
    found = []
    for portion, missing in to_make(artifact, WANTED, ["ab", "c"]):
        found.append((portion, missing))
        assert [who.unit for who in holders(artifact.path)] == list(portion)
        for unit in missing:
            make(artifact, unit)
    return found


def test_what_is_missing_is_made_portion_by_portion_and_no_lease_stays(artifact: Artifact) -> None:
    artifact.path.mkdir(parents=True)
    make(artifact, "a")
    assert made(artifact) == [("ab", ["b"]), ("c", ["c"])]
    assert made(artifact) == []
    assert list((artifact.path / LEASES).iterdir()) == []


def test_what_another_has_in_work_comes_last_and_is_taken_over_when_it_is_killed(artifact: Artifact) -> None:
    with another(artifact, "a") as process:
        (held,) = holders(artifact.path)
        assert (held.unit, held.pid) == ("a", process.pid) and abs(held.since - time.time()) < 30
        portions = to_make(artifact, WANTED, ["ab", "c"])
        assert next(portions) == ("c", ["c"])
        make(artifact, "c")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list(portions) == [("ab", ["a", "b"])]


def test_what_another_has_made_meanwhile_is_not_made_again(artifact: Artifact) -> None:
    with another(artifact, "a", "b", "c") as process:
        portions = to_make(artifact, WANTED, ["abc"])
        for unit in WANTED:
            make(artifact, unit)
        process.kill()
        assert list(portions) == []


def test_of_several_units_all_are_leased_or_none(artifact: Artifact) -> None:
    with another(artifact, "b"):
        with leased(artifact, ["a", "b", "c"]) as ours:
            assert not ours
        with leased(artifact, ["a"]) as ours:
            assert ours


def test_a_thread_of_the_same_process_is_another_too(artifact: Artifact) -> None:
    with leased(artifact, ["a"]) as ours, leased(artifact, ["a"]) as again:
        assert ours and not again


def test_what_is_made_as_a_whole_is_waited_for(artifact: Artifact) -> None:
    with another(artifact, "") as process:
        start = time.monotonic()
        os.kill(process.pid, signal.SIGSTOP)  # it lives, however slow it is
        timer = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {process.pid}"])
        with leased_whole(artifact):
            assert time.monotonic() - start > 0.9
            assert [who.pid for who in holders(artifact.path)] == [os.getpid()]
        timer.wait()


def test_where_there_are_no_locks_everything_is_ours(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr("fcntl.flock", flock)
    with leased(artifact, ["a"]) as ours, leased(artifact, ["a"]) as again:
        assert ours and again
    assert holders(artifact.path) == []


def test_a_file_that_a_killed_process_left_is_no_lease(artifact: Artifact) -> None:
    left = artifact.path / LEASES / "0123456789ab.json"
    left.parent.mkdir(parents=True)
    left.write_text(json.dumps({"unit": "a", "pid": 1}))
    assert holders(artifact.path) == []
