"""What cannot be is refused with one line that names the value and the remedy, before anything is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.flows.conftest import Result, Services, ddoq, free_port, run_tiny
from tests.flows.test_server import listener, web_server

pytestmark = pytest.mark.slow

SECONDS = 30  # on an idle machine 1; those that look at the data 3

REFUSED = {
    "unknown recipe": (["run", "digit"], "'digit'", "digits"),
    "misspelt setting": (["run", "digits", "--set", "decode.strenght=0.4"], "'decode.strenght'", "strength"),
    "misspelt place": (["run", "digits", "--set", "decod.strength=0.4"], "'decod.strength'", "there is no setting"),
    "setting without a value": (["run", "digits", "--set", "ipc"], "'ipc'", "--set decode.strength=0.4"),
    "ill-typed setting": (["run", "digits", "--set", "decode.strength=high"], "decode.strength='high'", "number"),
    "setting out of range": (["run", "digits", "--set", "decode.strength=1.5"], "decode.strength=1.5", "equal to 1"),
    "setting of a method": (
        ["run", "digits", "--set", 'methods={"a": {"cluster": {"methode": "exact"}}}'],
        "methode",
        "not permitted",
    ),
    "ipc of 0": (["run", "digits", "--ipc", "0"], "ipc=0", "greater than 0"),
    "ipc above the smallest class": (["run", "digits", "--ipc", "1000"], "ipc=1000", "set ipc to at most"),
    "missing data": (
        ["run", "digits", "--set", "data.source=folder", "--set", "data.path=/nowhere"],
        "/nowhere",
        "give the path",
    ),
    "missing prior": (
        ["run", "digits", "--set", 'prior={"kind": "dit", "weights": "/nowhere/dit"}'],
        "'/nowhere/dit'",
        "hub name",
    ),
    "patches that do not divide": (
        ["run", "digits", "--set", "images.size_px=12"],
        "prior.train.patch_size=2",
        "images.size_px to a multiple of 8",
    ),
    "inversion by another sampler": (
        ["run", "digits", "--set", "decode.inversion=true"],
        "not 'given'",
        "decode.sampler=ddim",
    ),
    "no data path": (["run", "digits", "--set", "data.source=folder"], "data.path", "--set data.path="),
    "unknown stage": (["stage", "clusters", "digits"], "'clusters'", "cluster"),
    "unknown quantiser": (["compare", "digits", "--quantizer", "kmeans"], "'kmeans'", "'balanced'"),
    "a setting that is compared": (
        ["compare", "digits", "--set", "weights=mass"],
        "'weights=mass'",
        "compares weights",
    ),
    "a value twice": (["compare", "digits", "--ipc", "2", "--ipc", "2"], "ipc=[2, 2]", "each value once"),
    "one ipc above the smallest class": (["compare", "digits", "--ipc", "1", "--ipc", "900"], "ipc=900", "set ipc to"),
    "no number of workers": (["run", "digits", "--workers", "abc"], "--workers='abc'", "1 or more"),
    "more workers than memory": (
        ["run", "digits", "--workers", "100000"],
        "100000 GiB",
        "--workers=100000: give fewer",
    ),
    "a malformed scheduler": (["run", "digits", "--cluster", "localhost:4399x"], "'localhost:4399x'", "tcp://10."),
    "no scheduler's port": (
        ["run", "digits", "--cluster", "tcp://[::1]:99999"],
        "--cluster='tcp://[::1]:99999'",
        "like",
    ),
    "stage without its inputs": (["stage", "cluster", "digits"], "shard", "run that stage"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    arguments, value, remedy = REFUSED[case]
    root = tmp_path / "runs"
    result = ddoq(*arguments, "--root", root)
    _assert_refused(result, 2, value, remedy)
    assert not [*root.rglob("record.json"), *root.rglob("marks")], "something counts as done"


@pytest.mark.parametrize("place", ["file/runs", "/proc/runs"])
def test_root_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    root = tmp_path / place
    _assert_refused(ddoq("run", "digits", "--root", root), 2, str(root), "--root")


@pytest.mark.parametrize("verb", ["inspect", "verify", "forget"])
def test_folder_without_artifacts(verb: str, tmp_path: Path) -> None:
    _assert_refused(ddoq(verb, tmp_path / "nothing"), 2, "nothing", "runs/digits/encode")


def test_workers_of_the_environment(tmp_path: Path) -> None:
    result = ddoq("run", "digits", "--root", tmp_path / "runs", DDOQ_WORKERS="abc")
    _assert_refused(result, 2, "DDOQ_WORKERS='abc'", "1 or more")


def test_scheduler_of_the_environment(tmp_path: Path) -> None:
    result = ddoq("run", "digits", "--root", tmp_path / "runs", DDOQ_CLUSTER="10.0.0.1")
    _assert_refused(result, 2, "DDOQ_CLUSTER='10.0.0.1'", "tcp://10.0.0.1:8786")


@contextmanager
def nothing() -> Iterator[str]:
    """A port that nobody listens on."""
    yield f"127.0.0.1:{free_port()}"


@pytest.mark.parametrize("serve", [nothing, web_server, listener])
def test_what_is_no_scheduler_is_named(
    serve: Callable[[], AbstractContextManager[str]], root: Path, services: Services
) -> None:
    with serve() as address:
        start = time.monotonic()
        result = run_tiny(root, "--ipc", "2", "--cluster", f"tcp://{address}", **services.api)
    [line] = result.errors.splitlines()
    assert result.code == 1
    assert f"no Dask scheduler answers at 'tcp://{address}'" in line and "start one" in line
    assert time.monotonic() - start < 2 * SECONDS


def test_server_that_does_not_answer(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    result = ddoq("run", "digits", "--root", tmp_path / "runs", PREFECT_API_URL=url)
    _assert_refused(result, 1, url, "unset PREFECT_API_URL")


def _assert_refused(result: Result, code: int, value: str, remedy: str) -> None:
    assert result.code == code, result.errors
    assert len(result.errors.strip().splitlines()) == 1, result.errors
    assert result.errors.startswith("ddoq: ")
    assert value in result.errors
    assert remedy in result.errors
    assert not result.output.strip()
    assert result.seconds < SECONDS
