"""prefect.yaml is complete and means what it says; Prefect itself ignores keys it does not know."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from tasks.recipe.settings import COMPARE, STAGES, Recipe
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
    assert {name for flow, name in DEPLOYMENTS if flow == stage} == set(RECIPES)
    for name in RECIPES:
        whole, alone = DEPLOYMENTS["distill", name], DEPLOYMENTS[stage, name]
        assert alone["parameters"] == whole["parameters"]
        assert alone["work_pool"] == whole["work_pool"]


def test_entrypoints_are_the_flows_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for entrypoint in {d["entrypoint"] for d in CATALOGUE["deployments"]}:
        found = load_flow_from_entrypoint(entrypoint)
        assert found.name == entrypoint.rpartition(":")[2]
        own = {"matrix"} if found.name == COMPARE else set()
        assert set(found.parameters.properties) == {"recipe", "ipc", "changes", "root"} | own
