"""A mistake is one line with its remedy, a bug says that it is one and where its traceback lies."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ddoq_core.cluster.weights import class_weights
from flows.errors import BUG, DEBUG, LOGS, RunFailed, clear_errors
from storage.artifact import NotDone
from storage.errors import UsageError
from storage.sources import SourceError
from tests.flows.conftest import Services, ddoq, run_tiny


def told(error: BaseException, root: Path | None, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and text of an error that is raised in a command."""
    with pytest.raises(SystemExit) as ended, clear_errors(root):
        raise error
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("kind", [UsageError, SourceError, NotDone])
def test_a_mistake_is_told_verbatim(kind: type[Exception], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = "[old]/a [bold]b[/] is no folder: give another"
    assert told(kind(said), tmp_path, capsys) == (2, f"ddoq: {said}\n")
    assert not (tmp_path / LOGS).exists()


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("no"), FileNotFoundError(errno.ENOENT, "gone", "a.json")])
def test_a_bug_does_not_pass_for_a_mistake(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = told(error, tmp_path / "[old]", capsys)
    assert code == BUG
    assert text.startswith("ddoq: a bug in ddoq")
    assert f"{type(error).__name__}: {error}" in text
    assert "ddoq --debug" in text
    [log] = (tmp_path / "[old]" / LOGS).iterdir()
    assert str(log) in text
    assert "raise error" in log.read_text()


def test_a_bug_without_a_root_is_logged_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = told(ZeroDivisionError(), None, capsys)
    log = Path(re.findall(r"traceback is in (\S+\.log);", text)[0])
    assert code == BUG and "ZeroDivisionError" in log.read_text()
    log.unlink()


def test_a_failed_run_is_classed_by_its_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def failed(cause: Exception) -> tuple[int, str]:
        error = RunFailed(f"{type(cause).__name__}: {cause}")
        error.__cause__ = cause
        return told(error, tmp_path, capsys)

    assert failed(SourceError("no image [3]: repair it")) == (1, "ddoq: no image [3]: repair it\n")
    assert failed(FloatingPointError("loss is nan: lower the rate"))[0] == 1
    full = failed(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/[a]"))
    assert full == (
        1,
        "ddoq: No space left on device for /disk/[a]: make room, and run the same command again to go on\n",
    )
    assert failed(KeyError("x"))[0] == BUG
    with pytest.raises(ValueError) as invalid:
        class_weights([1], "cubic")
    assert failed(invalid.value)[0] == 1


def test_a_disk_that_is_full_under_a_model_is_no_bug(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SafetensorError) as full:
        save_file({"weight": torch.zeros(2**21)}, small_disk / "model.safetensors")
    error = RunFailed("SafetensorError")
    error.__cause__ = full.value
    said = f"ddoq: No space left on device for {small_disk}: make room, and run the same command again to go on\n"
    assert told(error, small_disk, capsys) == (1, said)


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in told(UsageError("no"), None, capsys)[1]
    monkeypatch.setenv(DEBUG, "1")
    assert "Traceback (most recent call last)" in told(UsageError("no"), None, capsys)[1]


def test_debug_is_an_option_of_the_command() -> None:
    result = ddoq("--debug", "run", "digit")
    assert result.code == 2
    assert "UsageError" in result.errors and result.errors.splitlines()[-1].startswith("ddoq: unknown recipe")


def test_what_a_stage_cannot_explain_is_a_bug_with_a_log(root: Path, services: Services) -> None:
    shutil.rmtree(root / "report")
    (root / "report").write_text("nobody of ours has put this here")
    result = run_tiny(root, **services.both)
    assert result.code == BUG, result.errors
    assert "NotADirectoryError" in result.errors or "FileExistsError" in result.errors
    [log] = (root / LOGS).iterdir()
    assert str(log) in result.errors and "Traceback (most recent call last)" in log.read_text()


SIGNAL_IN_A_FORK = """
import os, signal, subprocess, sys, time
from flows import cli

def run():
    os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.{name}))
    subprocess.Popen(["true"], preexec_fn=lambda: None).wait()
    time.sleep(30)

cli.app = run
cli.main()
"""


@pytest.mark.parametrize(("name", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_a_signal_in_the_middle_of_a_fork_is_not_lost(name: str, code: int, word: str) -> None:
    done = subprocess.run([sys.executable, "-c", SIGNAL_IN_A_FORK.format(name=name)], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stderr == f"ddoq: {word}: run the same command again to go on\n"
