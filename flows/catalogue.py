"""Recipes: the entries of prefect.yaml that deploy the flow `distill`.

The catalogue travels with the package. A prefect.yaml of the current folder adds to it, or replaces entries of the
same name; of a file that belongs to another project nothing is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from storage.errors import UsageError
from tasks.recipe.grid import Grid
from tasks.recipe.matrix import Matrix
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import DecodeConfig, Weighting

OURS, YOURS = Path(__file__).with_name("prefect.yaml"), Path("prefect.yaml")
SHOWN = 200  # characters of a value that is refused
FLOW = ":distill"  # how the entrypoint of a recipe ends
Found = TypeVar("Found", bound=BaseModel)


def recipes() -> dict[str, dict[str, Any]]:
    """Recipe parameters by name. Raises UsageError for a prefect.yaml here that speaks of `distill` and is no YAML."""
    return {**dict(_recipes_in(OURS)), **dict(_recipes_in(YOURS))}


def _recipes_in(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and parameters of the deployments that are ours."""
    tree = _read(path)
    deployments = tree.get("deployments") if isinstance(tree, dict) else None
    for deployment in deployments if isinstance(deployments, list) else []:
        match deployment:
            case {"name": str(name), "entrypoint": str(entrypoint), "parameters": {"recipe": dict(recipe)}}:
                if entrypoint.endswith(FLOW):
                    yield name, recipe


def _read(path: Path) -> Any:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):  # absent, a folder, another's
        return None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        if FLOW not in text:
            return None
        problem = " ".join(str(error).split())
        raise UsageError(f"{path.absolute()} is no YAML ({problem}): mend it, or run ddoq elsewhere") from error


def load_recipe(name: str, ipc: int | None = None, settings: list[str] | None = None) -> Recipe:
    """A recipe of the catalogue with `--ipc` and `--set name=value` applied. Raises UsageError."""
    known = recipes()
    if name not in known:
        raise UsageError(f"unknown recipe {name!r}: there are {', '.join(sorted(known))} (see ddoq recipes)")
    return changed(_valid(Recipe, known[name]), dict(_parse(setting) for setting in settings or []), ipc=ipc)


def changed(
    recipe: Recipe,
    changes: dict[str, Any] | None,
    *,
    data: str | None = None,
    minutes: float | None = None,
    **given: Any,
) -> Recipe:
    """The recipe with other settings by their dotted names, and with those that flows have a parameter for, where it is
    given; `data` is data.path. Raises UsageError."""
    if data is not None and recipe.data.source == "digits":
        raise UsageError(
            f"data={_short(data)}: the recipe {recipe.name!r} has scikit-learn's digits, no path: leave it out"
        )
    named = {name: value for name, value in {"data.path": data, **given}.items() if value is not None}
    try:
        recipe = recipe.with_changes({**(changes or {}), **named})
    except KeyError as error:
        raise UsageError(str(error.args[0])) from error
    except ValidationError as error:
        raise UsageError(describe(error)) from error
    return recipe if minutes is None else within(recipe, minutes)


def within(recipe: Recipe, minutes: float) -> Recipe:
    """The recipe as `--minutes` leaves it. Raises UsageError for minutes that cannot be."""
    try:
        return recipe.within(minutes)
    except ValidationError as error:
        raise UsageError(describe(error)) from error


def matrix_of(given: dict[str, Any]) -> Matrix:
    """What is to be compared; the usual where nothing is given. Raises UsageError."""
    return _valid(Matrix, given)


def given_rows(given: list[str], class_order: str | None = None, own_labels: bool = False) -> dict[str, dict[str, Any]]:
    """What a matrix says of sets that are given as NAME=PATH, or as NAME={JSON} with more settings of decode; their
    images per class are counted. Raises UserError for what is no such set."""
    from tasks.sets.read import images_per_class, open_set

    rows = {}
    for text in given:
        name, told = _parse(text, "--given theirs=FOLDER")
        decode = {"class_order": class_order, "labels": "own" if own_labels else "teacher"}
        decode |= told if isinstance(told, dict) else {"path": text.partition("=")[2]}
        if isinstance(path := decode.get("path"), str):
            decode["path"] = str(Path(path).expanduser().absolute())  # workers may be in another folder
        config = _valid(DecodeConfig, {"method": "given", **decode})
        rows[name] = {"ipc": images_per_class(open_set(config)), "decode": config}
    return rows


def grid_of(given: dict[str, Any]) -> Grid:
    """What is to be tried; the usual where nothing is given. Raises UsageError."""
    return _valid(Grid, given)


def _valid(kind: type[Found], given: dict[str, Any]) -> Found:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise UsageError(describe(error)) from error


def describe(error: ValidationError) -> str:
    """The first complaint of a validation, in one line with the setting's name and value."""
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"] if "[" not in str(part)]  # no names of types
    where = ".".join(part if part.isprintable() else ascii(part) for part in parts) or "recipe"
    given = "" if isinstance(first["input"], dict) else f"={_short(first['input'])}"
    return f"{where}{given}: {first['msg']}"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a number too long to be shown"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _parse(setting: str, like: str = "--set decode.strength=0.4") -> tuple[str, Any]:
    name, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"{like.split()[0]} {setting!r} has no '=': write {like}")
    try:
        return name, json.loads(text)
    except RecursionError as error:
        raise UsageError(f"{like.split()[0]} {name}={text[:20]}… is nested too deep: write its value flat") from error
    except ValueError:  # no JSON, or a number of thousands of digits
        return name, text


def weighting_of(text: str | None) -> Weighting | None:
    """A rule of weights by name or as a power. Raises UsageError."""
    try:
        return None if text is None else TypeAdapter(Weighting).validate_python(text)
    except ValidationError as error:
        known = "uniform, sqrt, mass, sqrt-paper or a power like 0.5"
        raise UsageError(f"--weights {text!r} is no rule of weights: give {known}") from error
