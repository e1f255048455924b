"""Faults at random moments of real runs, and whether a rerun ends as if nothing had happened.

    uv run python -m tests.bench.faults [--seed 0] [--num 60] [--only KIND]

Each fault is drawn from the seed and printed. It befalls the tiny run of the tests: a process is ended while some stage
works, a disk is full or cannot be written, or a file of a finished artifact is flipped, cut short or deleted with its
time restored. Then `ddoq verify` (for what lies still) and the same command again. A fault is survived if that ends
well, every artifact's content is that of the undisturbed run, what was whole before was not made again, and neither a
process nor a partial file is left. The last line is JSON: tried, survived; the exit status is 1 if they differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.flows.conftest import Command, ddoq, run_tiny, serve_all, start_tiny

STAGES = (
    "shard", "view", "autoencoder", "encode", "teacher", "prior", "cluster", "decode", "measure", "train", "evaluate",
)  # fmt: skip
NOT_COMPARED = ("report", "sample")  # a report shows times; samples are not distilled
UNITS = ("encode", "cluster", "decode")  # are made unit by unit: what is whole of them is kept
DAMAGES = ("flipped", "cut short", "deleted")
KILLS = ("the run", "a worker", "the server", "everything", "by Ctrl-C", "by SIGTERM")
DISKS = ("full", "read-only")
Marks = dict[Path, tuple[int, bytes]]


class Broken(AssertionError):
    """A fault that was not survived; the message says how."""


class Trial:
    """One fault in a copy of the finished root. `services` are there for the reruns, for speed."""

    def __init__(self, finished: Path, root: Path, rng: random.Random, services: dict[str, str]) -> None:
        self.finished, self.root, self.rng, self.services = finished, root, rng, services
        shutil.copytree(finished, root, symlinks=True)

    def damage(self, how: str) -> str:
        """A file of a finished artifact is not as it was; size as far as can be, and time, are."""
        files = [f for stage in STAGES for f in sorted((self.root / stage).rglob("*")) if f.is_file()]
        path = self.rng.choice([f for f in files if f.stat().st_size])
        owner = path.relative_to(self.root).parts[:2]
        kept = {mark: data for mark, data in marks(self.root).items() if mark.parts[:2] != owner}
        spoil(path, how, self.rng)
        told = ddoq("verify", self.root)
        if told.code != 1:
            raise Broken(f"verify ended with {told.code}: {told.output[-200:]}{told.errors[-200:]}")
        self.go_on(kept)
        return f"{path.relative_to(self.root)} {how}"

    def kill(self, whom: str) -> str:
        """A process ends while what was forgotten of a stage, and of all below it, is made again."""
        stage = self.forget_from_a_stage()
        command, patience = start_tiny(self.root), self.rng.uniform(2, 20)
        try:
            time.sleep(patience)
            end(command, whom)
            command.process.wait(timeout=120)
            limit = time.monotonic() + 30
            while command.alive():
                if time.monotonic() > limit:
                    raise Broken(f"processes are left: {[p.name() for p in command.alive()]}")
                time.sleep(0.1)
        finally:
            command.end()
        self.go_on({mark: data for mark, data in marks(self.root).items() if mark.parts[0] in UNITS})
        return f"{whom} ended after {patience:.1f} s of work from {stage} on"

    def disk(self, how: str) -> str:
        """What was forgotten is made again on a disk that is full after some time, or cannot be written."""
        stage = self.forget_from_a_stage()
        used = sum(f.lstat().st_size for f in self.root.rglob("*") if f.is_file() and not f.is_symlink())
        room = used + self.rng.randrange(2_000_000, 6_000_000)
        with small_disk(self.root, room if how == "full" else 4 * used, read_only=how == "read-only") as place:
            result = run_tiny(place)
            if result.code == 0 and how == "read-only":
                raise Broken("a run on a disk that cannot be written ended well")
            if result.code not in (0, 1, 2) or len(result.errors.strip().splitlines()) > 40:
                raise Broken(f"ended with {result.code}: {result.errors[-300:]}")
        self.go_on({})
        return f"{how} disk while work from {stage} on was made again"

    def forget_from_a_stage(self) -> str:
        """Drop some units of a stage, and what lies below it."""
        stage = self.rng.choice(STAGES[1:])
        for below in (*STAGES[STAGES.index(stage) :], "sample", "report"):
            shutil.rmtree(self.root / below, ignore_errors=True)
        return stage

    def go_on(self, kept: Marks) -> None:
        """The same command again ends well, and as the undisturbed run did."""
        result = run_tiny(self.root, **self.services)
        if result.code != 0:
            raise Broken(f"the rerun ended with {result.code}: {result.errors[-300:]}")
        now = marks(self.root)
        if again := [mark for mark, data in kept.items() if now.get(mark) != data]:
            raise Broken(f"{len(again)} units that were whole were made again, the first {again[0]}")
        if (found := contents(self.root)) != (expected := contents(self.finished)):
            differ = sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name))
            raise Broken(f"other contents than the undisturbed run's: {differ[:3]}")
        left = [p for p in self.root.rglob("*.partial") if not p.name.startswith(".record.json.")]
        if left or list(self.root.rglob("checkpoint.pt")):
            raise Broken(f"left behind: {left[:3]}")


KINDS: dict[str, Callable[[Trial, str], str]] = {
    **{f"file {how}": Trial.damage for how in DAMAGES},
    **{f"killed {whom}": Trial.kill for whom in KILLS},
    **{f"disk {how}": Trial.disk for how in DISKS},
}


def marks(root: Path) -> Marks:
    """Time and bytes of every mark, by its place in the root."""
    found = (mark for stage in STAGES for mark in (root / stage).glob("*/marks/**/*.json"))
    return {mark.relative_to(root): (mark.stat().st_mtime_ns, mark.read_bytes()) for mark in found}


def contents(root: Path) -> dict[str, str]:
    """What each finished artifact holds, as its record says."""
    records = [path for stage in STAGES for path in (root / stage).glob("*/record.json")]
    return {str(path.parent.relative_to(root)): json.loads(path.read_text())["content"] for path in records}


def spoil(path: Path, how: str, rng: random.Random) -> None:
    """Damage a file and restore its time."""
    at, data = path.stat(), bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
        return
    if how == "flipped":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        del data[rng.randrange(len(data)) :]
    path.write_bytes(data)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))


def end(command: Command, whom: str) -> None:
    """End the run, a process of it, or all of them."""
    alive = command.alive()
    if whom == "the run":
        command.process.kill()
    elif whom == "by Ctrl-C":
        os.killpg(command.process.pid, signal.SIGINT)
    elif whom == "by SIGTERM":
        command.process.terminate()
    else:
        words = {"a worker": "spawn_main", "the server": "prefect"}.get(whom, "")
        chosen = [p for p in alive if words in _words(p) and (not words or p.pid != command.process.pid)]
        for process in chosen[:1] if words else chosen:
            process.kill()


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def small_disk(root: Path, num_bytes: int, *, read_only: bool) -> Iterator[Path]:
    """The root's files on a file system of its own, and back again behind the block."""
    place = root.with_name(f"{root.name}-disk")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(place)], check=True)
    try:
        shutil.copytree(root, place, symlinks=True, dirs_exist_ok=True)
        if read_only:
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        yield place
        shutil.rmtree(root)
        shutil.copytree(place, root, symlinks=True)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


def try_faults(
    finished: Path, folder: Path, num: int, seed: int, only: str | None, services: dict[str, str]
) -> tuple[int, int]:
    """How many faults were tried, kind after kind, and how many were survived. Prints a line for each."""
    kinds = [kind for kind in KINDS if (only or "") in kind and (os.geteuid() == 0 or not kind.startswith("disk"))]
    survived = 0
    for k in range(num):
        rng, kind = random.Random(f"{seed}/{k}"), kinds[k % len(kinds)]
        root = folder / f"fault-{k}"
        try:
            told = KINDS[kind](Trial(finished, root, rng, services), kind.split(" ", 1)[1])
            survived += 1
            print(f"{k:3d} survived  {told}", flush=True)
        except (Broken, subprocess.TimeoutExpired) as error:
            print(f"{k:3d} BROKEN    {kind}: {error}", flush=True)
        shutil.rmtree(root, ignore_errors=True)
    return num, survived


def main() -> None:
    """Make the undisturbed run, and try."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num", type=int, default=66)
    parser.add_argument("--only", help="a part of a kind's name: " + ", ".join(KINDS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        finished = Path(name) / "finished"
        result = run_tiny(finished)
        assert result.code == 0, result.errors
        with serve_all(finished / ".prefect", Path(name) / "services") as services:
            tried, survived = try_faults(finished, Path(name), given.num, given.seed, given.only, services.both)
    print(json.dumps({"tried": tried, "survived": survived, "seed": given.seed}))
    sys.exit(survived < tried)


if __name__ == "__main__":
    main()
