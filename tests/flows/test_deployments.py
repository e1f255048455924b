"""The catalogue on a real Prefect server, with a process work pool and a worker, as docs/prefect.md tells it."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.recipe.matrix import OWNED
from tests.flows.conftest import IPC, SCRIPTS, SETTINGS, Result, Services, ddoq, deployed, start, wait_until
from tests.flows.test_run import artifacts, contents
from tests.miniature import RECIPES, changes, write_images, write_models

STAGES_BELOW = ("cluster", "decode", "measure", "train", "evaluate", "report")


@pytest.fixture(scope="module")
def pool(services: Services) -> Iterator[Services]:
    """A worker that serves every deployment of the catalogue."""
    with deployed(services.api):
        yield services


def _prefect(services: Services, *arguments: str) -> Result:
    command = start(SCRIPTS / "prefect", *arguments, **services.api)
    try:
        return command.result()
    finally:
        command.end()


def _run_deployment(services: Services, name: str, root: Path, ipc: int | str, *more: str) -> Result:
    owned = OWNED if name.startswith("compare/") else ()
    changes = {key: _json(value) for key, value in SETTINGS.items() if key not in owned}
    parameters = {"changes": json.dumps(changes), "root": str(root), "ipc": str(ipc)}
    given = [part for key, value in parameters.items() for part in ("-p", f"{key}={value}")]
    return _prefect(services, "deployment", "run", name, *given, *more)


@pytest.mark.parametrize("recipe", RECIPES)
def test_imagenet_in_miniature(recipe: str, pool: Services, tmp_path: Path) -> None:
    images, models = write_images(tmp_path / "images", 24, 6), write_models(tmp_path / "models")
    told = json.dumps(changes(recipe, images, models))
    given = ("-p", f"changes={told}", "-p", f"root={tmp_path / 'runs'}", "-p", "ipc=2", "--watch")
    result = _prefect(pool, "deployment", "run", f"distill/{recipe}", *given)
    assert result.code == 0, result.output + result.errors
    rows = json.loads((tmp_path / "runs" / recipe / "report" / "report" / "results.json").read_text())
    assert [row["method"] for row in rows] == ["paper", "ddoq", "d4m", "medoids", "random"]
    assert rows[1]["w2"] < rows[2]["w2"] and rows[1]["w2"] < rows[4]["w2"], "the best quantiser is the nearest"
    units = _table(pool, f"ddoq-{recipe}-units-encode")
    assert len(units) == 24 and all(row["compute"] > 0 and row["images/s"] > 0 and row["peak MiB"] > 0 for row in units)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _table(services: Services, key: str) -> list[dict[str, Any]]:
    """The newest table that a flow left in Prefect under a key."""
    body = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": 1}
    request = urllib.request.Request(
        f"{services.api['PREFECT_API_URL']}/artifacts/filter",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return list(json.loads(json.loads(answer.read())[0]["data"]))


def _stage_table(services: Services) -> dict[str, str]:
    """Stage → state, of the newest run of digits."""
    return {row["stage"]: row["state"] for row in _table(services, "ddoq-digits-stages")}


def test_distil_then_one_stage(pool: Services, root: Path) -> None:
    before = artifacts(root)
    whole = _run_deployment(pool, "distill/digits", root, IPC - 1, "--watch")
    assert whole.code == 0, whole.output + whole.errors
    states = _stage_table(pool)
    assert {stage for stage, state in states.items() if state == "ran"} == set(STAGES_BELOW)
    assert {stage for stage, state in states.items() if state == "cached"} == {
        "shard", "view", "autoencoder", "encode", "teacher", "prior", "sample",
    }  # fmt: skip
    assert artifacts(root, "report").keys() - before.keys()

    before = artifacts(root)
    again = _run_deployment(pool, "cluster/digits", root, IPC - 1, "--watch")
    assert again.code == 0, again.output + again.errors
    assert _stage_table(pool) == {"cluster": "cached"}
    assert artifacts(root) == before

    alone = _run_deployment(pool, "cluster/digits", root, IPC - 2, "--watch")
    assert alone.code == 0, alone.output + alone.errors
    assert _stage_table(pool) == {"cluster": "ran"}
    assert {name.split("/")[0] for name in artifacts(root).keys() - before.keys()} == {"cluster"}


def test_compare(pool: Services, root: Path) -> None:
    matrix = {"seeds": [0, 1], "quantizers": ["exact"], "weights": ["mass"], "pictures": ["medoid", "random"]}
    found = _run_deployment(pool, "compare/digits", root, "2", "-p", f"matrix={json.dumps(matrix)}", "--watch")
    assert found.code == 0, found.output + found.errors
    assert _stage_table(pool)["teacher"] == "cached", "a comparison shares what distill has made"
    rows = json.loads((root / "digits" / "compare" / "comparison" / "results.json").read_text())["results"]
    assert {(row["ipc"], row["cell"], row["num_seeds"]) for row in rows} == {
        (2, "exact-mass-medoid", 2), (2, "random-uniform", 2), (2, "random-mass", 2),
    }  # fmt: skip


WRONG = {
    "ipcs=3": "ipcs",
    'ipc="many"': "'many' is not valid",
    'recipe={"name": "digits"}': "'data' is a required property",
    "changes=3": "3 is not valid",
}


@pytest.mark.parametrize("parameter", WRONG)
def test_wrong_parameter_is_refused(parameter: str, pool: Services, tmp_path: Path) -> None:
    result = _run_deployment(pool, "distill/digits", tmp_path / "runs", IPC, "-p", parameter, "--watch")
    reason = WRONG[parameter]
    assert result.code == 1
    assert reason in result.output + result.errors
    assert not (tmp_path / "runs").exists(), "refused before a run exists"


def test_the_cause_of_a_failure_is_on_the_operators_screen(pool: Services, tmp_path: Path) -> None:
    changes = json.dumps({"data.path": str(tmp_path / "nowhere")})
    given = ("-p", f"root={tmp_path / 'runs'}", "-p", f"changes={changes}")
    result = _prefect(pool, "deployment", "run", "distill/folder", *given, "--watch")
    assert result.code == 1
    told = " ".join((result.output + result.errors).split())
    assert "Failed: " in told and "nowhere" in told.replace(" ", "")


UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_a_stage_that_failed_is_rerun_in_any_way_with_the_same_result(pool: Services, tmp_path: Path) -> None:
    images, root = write_images(tmp_path / "images", 2, 24), tmp_path / "runs"
    told = {**SETTINGS, "data.path": str(images), "minutes": "null", "images.size_px": "16", "ipc": "2"}
    given = tuple(part for name, value in told.items() for part in ("--set", f"{name}={value}"))
    changes = json.dumps({name: _json(value) for name, value in told.items()})
    result = ddoq("run", "folder", *given, "--root", root)
    assert result.code == 0, result.errors
    pictures = contents(root, "decode")
    shutil.rmtree(root / "decode")

    def deployed_in(place: Path) -> Result:
        parameters = ("-p", f"root={place}", "-p", f"changes={changes}")
        return _prefect(pool, "deployment", "run", "decode/folder", *parameters, "--watch")

    images.rename(tmp_path / "away")
    failed, refused = deployed_in(root), ddoq("stage", "decode", "folder", *given, "--root", root)
    (tmp_path / "away").rename(images)
    said = " ".join((failed.output + failed.errors).split())
    assert failed.code == 1 and "can no longer be read" in said, "the cause is on the operator's screen"
    assert refused.code == 2 and "images does not exist" in refused.errors
    assert contents(root, "decode") != pictures
    alone, again = (shutil.copytree(root, tmp_path / name, symlinks=True) for name in ("alone", "again"))

    found = UUID.search(failed.output)
    assert found
    retried = _prefect(pool, "flow-run", "retry", found[0])
    assert retried.code == 0, retried.output + retried.errors
    for result in (ddoq("stage", "decode", "folder", *given, "--root", alone), deployed_in(again)):
        assert result.code == 0, result.output + result.errors
    wait_until(lambda: contents(root, "decode") == pictures, 120, "the worker retries it")
    assert contents(alone, "decode") == contents(again, "decode") == pictures


def test_every_deployment_is_on_the_server(pool: Services) -> None:
    listed = _prefect(pool, "deployment", "ls")
    assert listed.code == 0
    for name in ("distill/digits", "cluster/digits", "decode/imagenet", "report/imagenet", "compare/imagenet"):
        assert name in listed.output
