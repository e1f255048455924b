"""prefect.yaml is complete and means what it says; Prefect itself ignores keys it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from flows.catalogue import OURS, changed, load_recipe, recipes
from flows.tune import TUNE
from storage.errors import UsageError
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import COMPARE, STAGES
from tests.flows.conftest import REPOSITORY

KNOWN = {"name", "description", "entrypoint", "flow_name", "parameters", "tags", "version", "schedules", "work_pool"}
KNOWN_POOL = {"name", "work_queue_name", "job_variables"}

CATALOGUE: dict[str, Any] = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
DEPLOYMENTS: dict[tuple[str, str], dict[str, Any]] = {
    (d["entrypoint"].rpartition(":")[2], d["name"]): d for d in CATALOGUE["deployments"]
}
RECIPES = [name for flow, name in DEPLOYMENTS if flow == "distill"]


def test_no_key_is_ignored() -> None:
    assert set(CATALOGUE) <= {"name", "prefect-version", "definitions", "build", "push", "pull", "deployments"}
    for deployment in CATALOGUE["deployments"]:
        assert set(deployment) <= KNOWN, deployment["name"]
        assert set(deployment["work_pool"]) <= KNOWN_POOL, deployment["name"]


def test_tags_are_recipe_and_stage() -> None:
    for (flow, name), deployment in DEPLOYMENTS.items():
        assert deployment["tags"] == ["ddoq", name, flow]


def test_no_deployment_is_there_twice() -> None:
    assert len(DEPLOYMENTS) == len(CATALOGUE["deployments"])


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_valid(name: str) -> None:
    parameters = DEPLOYMENTS["distill", name]["parameters"]
    assert set(parameters) <= {"recipe", "ipc", "changes", "root"}
    recipe = Recipe.model_validate(parameters["recipe"])
    assert recipe.name == name
    assert recipe.claim, "a recipe says what it claims"


@pytest.mark.parametrize("stage", [*STAGES, COMPARE])
def test_every_recipe_deploys_the_stage(stage: str) -> None:
    file = "compare" if stage == COMPARE else "distill"
    missing = [
        f'  - {{name: {name}, entrypoint: "flows/{file}.py:{stage}", work_pool: *pool, '
        f"tags: [ddoq, {name}, {stage}], parameters: *{name}}}"
        for name in RECIPES
        if (stage, name) not in DEPLOYMENTS
    ]
    assert not missing, "prefect.yaml lacks:\n" + "\n".join(missing)
    assert {name for flow, name in DEPLOYMENTS if flow == stage} == set(RECIPES)
    for name in RECIPES:
        whole, alone = DEPLOYMENTS["distill", name], DEPLOYMENTS[stage, name]
        assert alone["parameters"] == whole["parameters"]
        assert alone["work_pool"] == whole["work_pool"]


@pytest.mark.slow
def test_entrypoints_are_the_flows_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for entrypoint in {d["entrypoint"] for d in CATALOGUE["deployments"]}:
        found = load_flow_from_entrypoint(entrypoint)
        assert found.name == entrypoint.rpartition(":")[2]
        own = {COMPARE: {"matrix"}, TUNE: {"grid", "method"}}.get(found.name, set())
        common = {"recipe", "ipc", "data", "minutes", "seeds", "changes", "root"}
        assert set(found.parameters.properties) == common | own
        assert all("description" in parameter for parameter in found.parameters.properties.values())


FOREIGN = {
    "no deployments": "name: theirs\n",
    "empty": "",
    "no mapping": "- a\n- b\n",
    "deployments that are none": "deployments: yes\n",
    "a deployment that is none": "deployments: [3, null, {}]\n",
    "no parameters": 'deployments: [{name: a, entrypoint: "x.py:distill"}]\n',
    "no entrypoint": "deployments: [{name: a, parameters: {recipe: {}}}]\n",
    "no name": 'deployments: [{entrypoint: "x.py:distill", parameters: {recipe: {}}}]\n',
    "another flow": 'deployments: [{name: digits, entrypoint: "x.py:cook", parameters: {recipe: {name: soup}}}]\n',
    "another recipe": 'deployments: [{name: digits, entrypoint: "x.py:distill", parameters: {recipe: whisky}}]\n',
    "broken": "deployments: [\n",
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_of_a_foreign_file_nothing_is_taken(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = FOREIGN[kind]
    (tmp_path / "prefect.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    assert recipes() == {name: DEPLOYMENTS["distill", name]["parameters"]["recipe"] for name in RECIPES}


def test_a_folder_of_that_name_is_no_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefect.yaml").mkdir()
    monkeypatch.chdir(tmp_path)
    assert list(recipes()) == RECIPES


def test_a_file_of_ours_adds_and_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = DEPLOYMENTS["distill", "digits"]["parameters"]["recipe"] | {"ipc": 7}
    entry = {"entrypoint": "flows/distill.py:distill", "parameters": {"recipe": mine}}
    tree = {"deployments": [{"name": "digits", **entry}, {"name": "mine", **entry}]}
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(tmp_path)
    assert list(recipes()) == [*RECIPES, "mine"]
    assert load_recipe("digits").ipc == load_recipe("mine").ipc == 7
    assert load_recipe("folder").ipc == 10


def test_what_has_a_name_of_its_own_goes_before_other_changes() -> None:
    recipe = changed(load_recipe("folder"), {"ipc": 3, "weights": "mass"}, ipc=4, data="/images", seeds=[7], minutes=5)
    found = (recipe.ipc, recipe.data.path, recipe.seeds, recipe.minutes, recipe.weights)
    assert found == (4, "/images", (7,), 5, "mass")
    assert changed(recipe, None, ipc=None, seeds=None) == recipe


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"changes": {"decod.strength": 1}}, "there is no setting 'decod.strength'"),
        ({"changes": {}, "seeds": [1, 1]}, r"seeds=\[1, 1\]: .*once"),
        ({"changes": {}, "minutes": 0}, "minutes=0"),
        ({"changes": {}, "data": "/images"}, "data='/images': the recipe 'digits' has scikit-learn's digits"),
    ],
)
def test_what_cannot_be_changed_is_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        changed(load_recipe("digits"), **given)
    assert len(str(error.value).splitlines()) == 1


def test_a_broken_file_of_ours_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefect.yaml").write_text('deployments:\n  - {name: a, entrypoint: "flows/distill.py:distill"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"{tmp_path}/prefect.yaml is no YAML \(.*line 2") as error:
        recipes()
    assert len(str(error.value).splitlines()) == 1


def test_the_catalogue_lies_in_the_package() -> None:
    assert OURS.parent.name == "flows"
    assert yaml.safe_load(OURS.read_text()) == CATALOGUE
