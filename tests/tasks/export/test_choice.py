"""What is exported: the method, weights and teacher of the run that made the pictures, or what is asked for instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.catalogue import load_recipe
from storage.artifact import Artifact, NotDone
from storage.errors import UsageError
from tasks.export.choice import choose
from tasks.inputs.runs import keep_run, kept_run
from tasks.recipe.recipe import Recipe

METHODS = {"d4m": {"weights": "uniform"}, "ddoq": {}, "ddoq-mass": {"weights": "mass"}, "power": {"weights": 0.25}}


@pytest.fixture
def root(parents: dict[str, Artifact], tmp_path: Path) -> Path:
    """A root whose recipe digits was run with seed 7: ddoq and its masses share their pictures, d4m has its own."""
    shared, own = parents["decode"], parents["teacher"]  # only its name matters here
    recipe = load_recipe("digits").with_changes({"seeds": [7], "methods": METHODS})
    pictures = {"d4m": own, "ddoq": shared, "ddoq-mass": shared, "power": shared}
    named = {f"images-{method}-7": artifact for method, artifact in pictures.items()}
    folder = tmp_path / "digits"
    folder.mkdir()
    for name, artifact in named.items():
        (folder / name).symlink_to(artifact.path)
    keep_run(folder, recipe, {**named, "teacher": parents["teacher"]})
    return tmp_path


def test_a_run_is_kept_as_it_was_resolved(root: Path) -> None:
    run = kept_run(root / "digits")
    assert run is not None and isinstance(run.recipe, Recipe)
    assert run.recipe.seeds == (7,) and list(run.recipe.methods) == list(METHODS)
    assert kept_run(root / "decode") is None


@pytest.mark.parametrize(
    ("method", "weights"), [(None, "uniform"), ("ddoq", "sqrt"), ("ddoq-mass", "mass"), ("power", 0.25)]
)
def test_a_method_has_its_own_weights_and_teacher(
    method: str | None, weights: object, root: Path, parents: dict[str, Artifact]
) -> None:
    by_name = choose("digits", root, method=method)
    by_link = choose(str(root / "digits" / f"images-{method or 'd4m'}-7"), root)
    for chosen in (by_name, by_link):
        assert chosen.weights == weights
        assert str(chosen.teacher) == str(parents["teacher"])
    assert str(by_name.decode) == str(by_link.decode)


def test_pictures_of_several_methods_need_a_rule(root: Path, parents: dict[str, Artifact]) -> None:
    folder = str(parents["decode"].path)
    with pytest.raises(UsageError, match=r"of methods with weights sqrt, mass, 0.25: say which rule with --weights"):
        choose(folder, root)
    chosen = choose(folder, root, weights="mass")
    assert chosen.weights == "mass" and str(chosen.teacher) == str(parents["teacher"])


def test_pictures_of_no_run_need_a_rule_and_have_no_teacher(root: Path, parents: dict[str, Artifact]) -> None:
    (root / "digits" / "run.json").unlink()
    with pytest.raises(UsageError, match="of no run that is kept: say which rule"):
        choose(str(parents["decode"].path), root)
    assert choose(str(parents["decode"].path), root, weights=0.5).teacher is None


def test_one_recipe_of_two_says_whose_pictures_they_are(root: Path, parents: dict[str, Artifact]) -> None:
    keep_run(root / "digits", load_recipe("digits").with_changes({"seeds": [7], "methods": {"ddoq": {}}}), {})
    folder = root / "other"
    folder.mkdir()
    recipe = load_recipe("digits").with_changes({"seeds": [1], "methods": {"mine": {"weights": "mass"}}})
    keep_run(folder, recipe, {"images-mine-1": parents["decode"]}, "compare-10")
    assert choose(str(parents["decode"].path), root).weights == "mass"


def test_what_cannot_be_chosen_is_told(root: Path, parents: dict[str, Artifact]) -> None:
    with pytest.raises(UsageError, match=r"the run of digits has no method 'best': it has d4m, ddoq"):
        choose("digits", root, method="best")
    with pytest.raises(NotDone, match="'cifar10' is neither a recipe that was run in"):
        choose("cifar10", root)
    with pytest.raises(UsageError, match="--method ddoq goes with a recipe's name"):
        choose(str(parents["decode"].path), root, method="ddoq")
    with pytest.raises(NotDone, match="is no artifact's folder"):
        choose(str(root / "digits"), root / "elsewhere")
