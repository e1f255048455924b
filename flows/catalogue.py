"""Recipes: the entries of prefect.yaml that deploy the flow `distill`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from tasks.recipe.matrix import Matrix
from tasks.recipe.settings import Recipe, Weighting


class UsageError(ValueError):
    """The user asked for something that cannot be; the message names the value and the remedy."""


def catalogue_path() -> Path:
    """prefect.yaml of the current folder, else of the checkout that this package lies in."""
    here = Path("prefect.yaml")
    return here if here.exists() else Path(__file__).parent.parent / "prefect.yaml"


def deployments() -> list[dict[str, Any]]:
    """All deployments of the catalogue."""
    path = catalogue_path()
    if not path.exists():
        raise UsageError("there is no prefect.yaml here: run ddoq in a checkout of the project")
    return list(yaml.safe_load(path.read_text())["deployments"])


def recipes() -> dict[str, dict[str, Any]]:
    """Recipe parameters by name."""
    return {d["name"]: d["parameters"]["recipe"] for d in deployments() if d["entrypoint"].endswith(":distill")}


def load_recipe(name: str, ipc: int | None = None, settings: list[str] | None = None) -> Recipe:
    """A recipe of the catalogue with `--ipc` and `--set name=value` applied. Raises UsageError."""
    known = recipes()
    if name not in known:
        raise UsageError(f"unknown recipe {name!r}: there are {', '.join(sorted(known))} (see prefect.yaml)")
    changes = dict(_parse(setting) for setting in settings or [])
    if ipc is not None:
        changes["ipc"] = ipc
    try:
        return Recipe.model_validate(known[name]).with_changes(changes)
    except KeyError as error:
        raise UsageError(str(error.args[0])) from error
    except ValidationError as error:
        raise UsageError(describe(error)) from error


def matrix_of(given: dict[str, Any]) -> Matrix:
    """What is to be compared; the usual where nothing is given. Raises UsageError."""
    try:
        return Matrix.model_validate(given)
    except ValidationError as error:
        raise UsageError(describe(error)) from error


def describe(error: ValidationError) -> str:
    """The first complaint of a validation, in one line with the setting's name and value."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if "[" not in str(part)) or "recipe"  # no names of types
    given = "" if isinstance(first["input"], dict) else f"={first['input']!r}"
    return f"{where}{given}: {first['msg']}"


def _parse(setting: str) -> tuple[str, Any]:
    name, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"--set {setting!r} has no '=': write --set decode.strength=0.4")
    try:
        return name, json.loads(text)
    except json.JSONDecodeError:
        return name, text


def weighting_of(text: str | None) -> Weighting | None:
    """A rule of weights by name or as a power. Raises UsageError."""
    try:
        return None if text is None else TypeAdapter(Weighting).validate_python(text)
    except ValidationError as error:
        known = "uniform, sqrt, mass, sqrt-paper or a power like 0.5"
        raise UsageError(f"--weights {text!r} is no rule of weights: give {known}") from error
