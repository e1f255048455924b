"""Weights under a path are compared at every run: changed ones are taken up anew, lost ones are named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from storage.artifact import Artifact
from tasks import prior as stage
from tasks.inputs.given import WeightsError, stamp_weights
from tasks.inputs.models import load_prior
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import DecodeConfig, GivenPrior
from tests.pipelines import save_dit
from tests.places import REPOSITORY
from tests.tasks.inputs.test_models import flip

DIGITS = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["definitions"]["digits"]["recipe"]
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
CLASSES = ("n01440764", "n02102040")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dit(tmp_path_factory.mktemp("dit") / "dit")


@pytest.fixture
def weights(pipeline: Path, tmp_path: Path) -> Path:
    shutil.copytree(pipeline, tmp_path / "dit")
    return tmp_path / "dit"


def planned(weights: Path, shard: Artifact) -> Artifact:
    """The prior as a run plans it."""
    changes = {"images": {"size_px": 8}, "prior": {"kind": "dit", "weights": str(weights)}}
    return stage.plan(Recipe.model_validate({**DIGITS, **changes}), shard, shard).artifact


def made(weights: Path, shard: Artifact) -> Artifact:
    """The prior as a run makes it, if it is not there."""
    artifact = planned(weights, shard)
    stage.prior.fn(artifact, GivenPrior(kind="dit", weights=str(weights)))
    return artifact


def change(weights: Path) -> None:
    state = load_file(weights / WEIGHTS)
    state["proj_out_2.bias"] += 1
    save_file(state, weights / WEIGHTS, metadata={"format": "pt"})


def test_weights_as_they_were_are_done_also_with_another_time(weights: Path, parents: dict[str, Artifact]) -> None:
    artifact = made(weights, parents["shard"])
    assert planned(weights, parents["shard"]).is_done()
    os.utime(weights / WEIGHTS, ns=(1, 1))
    assert planned(weights, parents["shard"]).is_done()
    assert artifact.record().units.keys() == {"model"}


def test_changed_weights_are_another_content_of_the_same_artifact(weights: Path, parents: dict[str, Artifact]) -> None:
    before = made(weights, parents["shard"])
    content, prior = before.content(), load_prior(before, DecodeConfig(), CLASSES)
    change(weights)
    after = planned(weights, parents["shard"])
    assert str(after) == str(before) and not after.is_done()
    assert made(weights, parents["shard"]).is_done() and after.content() != content
    assert load_prior(after, DecodeConfig(), CLASSES) is not prior
    assert planned(weights, parents["shard"]).is_done()


@pytest.mark.parametrize("name", ["transformer/config.json", "scheduler/more.json"])
def test_a_changed_or_added_file_counts(name: str, weights: Path, parents: dict[str, Artifact]) -> None:
    made(weights, parents["shard"])
    with (weights / name).open("a") as file:
        file.write(" ")
    assert not planned(weights, parents["shard"]).is_done()


def test_weights_that_are_gone_are_named(weights: Path, parents: dict[str, Artifact]) -> None:
    made(weights, parents["shard"])
    shutil.rmtree(weights)
    with pytest.raises(WeightsError, match=rf"weights '{weights}': no such folder"):
        planned(weights, parents["shard"])


def test_a_relative_folder_that_is_gone_is_no_hub_name(
    weights: Path, parents: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours").mkdir()
    weights.rename(tmp_path / "ours" / "dit")
    made(Path("ours/dit"), parents["shard"])
    shutil.rmtree("ours/dit")
    with pytest.raises(WeightsError, match="weights 'ours/dit': no such folder"):
        planned(Path("ours/dit"), parents["shard"])
    shutil.rmtree("ours")
    with pytest.raises(WeightsError, match=r"weights 'ours/dit' are gone, of which prior/.* put them back"):
        planned(Path("ours/dit"), parents["shard"])


def test_a_flipped_bit_under_the_same_size_and_time_is_found_when_loaded(
    weights: Path, parents: dict[str, Artifact]
) -> None:
    artifact = made(weights, parents["shard"])
    flip(weights / WEIGHTS)
    assert planned(weights, parents["shard"]).is_done()
    with pytest.raises(WeightsError, match=rf"{WEIGHTS} is not as it was when prior/.* run the same command again"):
        load_prior(artifact, DecodeConfig(), CLASSES)
    assert not artifact.is_done()


def test_only_the_subfolder_that_is_used_counts(weights: Path) -> None:
    names = stamp_weights(str(weights), "vae").keys()
    assert names and all(name.startswith("vae/") for name in names)
    assert stamp_weights("facebook/DiT-XL-2-256") == {}
