"""A prior that cannot decode a recipe's latents or classes is refused from its configuration files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.catalogue import load_recipe
from tasks.inputs.checks import check_prior, latents_of_recipe
from tasks.inputs.given import WeightsError
from tasks.recipe.recipe import Recipe
from tests.pipelines import save_pixart, save_sana, save_stable_diffusion_3
from tests.places import REPOSITORY

DIGITS = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["definitions"]["digits"]["recipe"]


def recipe(kind: str, folder: str | Path, size_px: int = 8, **more: Any) -> Recipe:
    changes = {
        "autoencoder": {"weights": str(folder), "subfolder": "vae"},
        "prior": {"kind": kind, "weights": str(folder)},
        "images": {"size_px": size_px},
    }
    return Recipe.model_validate({**DIGITS, **changes, **more})


def test_what_fits_is_let_through(folders: dict[str, Path]) -> None:
    check_prior(recipe("dit", folders["dit"]), ["cock", "goldfish", "n01440764"])
    check_prior(recipe("stable-diffusion", folders["stable-diffusion"]), ["anything"])
    check_prior(recipe("stable-diffusion", folders["stable-diffusion"], size_px=16), ["anything"])
    check_prior(recipe("dit", "facebook/DiT-XL-2-256"), ["looked at when it is loaded"])
    check_prior(Recipe.model_validate(DIGITS), list("0123456789"))


def refused(recipe: Recipe, class_names: list[str]) -> str:
    with pytest.raises(WeightsError) as caught:
        check_prior(recipe, class_names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_classes(folders: dict[str, Path]) -> None:
    told = refused(recipe("dit", folders["dit"]), ["cock", "our own", "n99999999"])
    assert str(folders["dit"]) in told and "does not know 2 of the classes, the first is 'our own'" in told
    assert "WordNet id" in told


def test_latents_of_another_size(folders: dict[str, Path]) -> None:
    told = refused(recipe("dit", folders["dit"], size_px=16), ["cock"])
    assert "8×8" in told and "16×16" in told and "images.size_px=8" in told


def test_a_pipeline_with_its_own_autoencoder_is_let_through(folders: dict[str, Path], tmp_path: Path) -> None:
    saves = (save_stable_diffusion_3, save_pixart, save_sana)
    for folder in (folders["image-to-image"], *(save(tmp_path / save.__name__) for save in saves)):
        check_prior(recipe("image-to-image", folder, size_px=32, decode={"strength": 0.5}), ["cock"])
    told = refused(recipe("image-to-image", folders["dit"], decode={"strength": 0.5}), ["cock"])
    assert "holds a 'DiTPipeline'" in told
    assert "needs a StableDiffusionXLPipeline or StableDiffusion3Pipeline or PixArtAlphaPipeline or PixArtSigm" in told


def test_the_autoencoder_of_sana(tmp_path: Path) -> None:
    folder = save_sana(tmp_path)
    assert latents_of_recipe(recipe("image-to-image", folder, size_px=64, decode={"strength": 0.5})) == (4, 2, 32)
    told = refused(recipe("dit", folder, size_px=64), ["cock"])
    assert "holds a 'SanaPipeline'" in told and "needs a DiTPipeline: change" in told


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        ({}, "set decode.strength"),
        ({"strength": 0.5, "sampler": "ddim"}, "decode.sampler is the pipeline's own"),
        ({"strength": 0.5, "guided_channels": 3}, "decode.guided_channels is the pipeline's own"),
    ],
)
def test_what_diffusers_pipelines_do_not_take_is_refused(
    decode: dict[str, Any], message: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe("image-to-image", folders["image-to-image"], decode=decode)


@pytest.mark.parametrize("kind", ["dit", "stable-diffusion", "image-to-image"])
def test_latents_of_other_channels(kind: str, folders: dict[str, Path]) -> None:
    other = {"train": {"channels": [8], "latent_channels": 3}}
    told = refused(recipe(kind, folders[kind], autoencoder=other, decode={"strength": 0.5}), ["cock"])
    assert "4 channels" in told and "have 3" in told and "autoencoder.subfolder=vae" in told


def test_patches_that_do_not_divide() -> None:
    told = refused(Recipe.model_validate({**DIGITS, "images": {"size_px": 12}}), ["0"])
    assert "prior.train.patch_size=2" in told and "side 3" in told and "multiple of 8" in told


@pytest.mark.parametrize("setting", ["prior", "autoencoder"])
def test_missing_folder(setting: str, folders: dict[str, Path]) -> None:
    good = recipe("dit", folders["dit"])
    told = refused(good.with_changes({f"{setting}.weights": "/nowhere/dit"}), ["cock"])
    assert "'/nowhere/dit'" in told and "give a diffusers folder or a hub name" in told


@pytest.mark.parametrize("part", ["model_index.json", "transformer/config.json", "vae/config.json"])
@pytest.mark.parametrize("damage", ["absent", "half"])
def test_incomplete_folder(part: str, damage: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "dit"
    shutil.copytree(folders["dit"], folder)
    text = (folder / part).read_text()
    (folder / part).unlink()
    if damage == "half":
        (folder / part).write_text(text[: len(text) // 2])
    told = refused(recipe("dit", folder), ["cock"])
    assert str(folder / part) in told and "give a diffusers folder" in told


def test_another_kind_of_pipeline(folders: dict[str, Path]) -> None:
    told = refused(recipe("dit", folders["stable-diffusion"]), ["cock"])
    assert "StableDiffusionPipeline" in told and "needs a DiTPipeline" in told


def test_ids_whose_names_are_another_classs(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "dit"
    shutil.copytree(folders["dit"], folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["id2label"] = {"0": "tench, Tinca tinca", "1": "axolotl, mud puppy", "134": "crane", "517": "crane"}
    (folder / "model_index.json").write_text(json.dumps(index))
    told = refused(recipe("dit", folder), ["n01440764", "n01443537"])
    assert "calls class 1 'axolotl'" in told and "n01443537 is 'goldfish, Carassius auratus'" in told
    check_prior(recipe("dit", folder), ["n02012849", "n03126707"])  # both are cranes


@pytest.mark.parametrize(
    ("size_px", "latents"),
    [(8, (3, 8, 1)), (16, (4, 8, 2)), (32, (8, 8, 4)), (48, (8, 12, 4)), (64, (16, 8, 8)), (224, (16, 28, 8))],
)
def test_an_autoencoder_of_components_follows_the_images_size(size_px: int, latents: tuple[int, int, int]) -> None:
    """Channels, side, factor: two for each pixel of a patch's side, and a side of 8 to 15 while four stages give it."""
    recipe = load_recipe("folder").with_changes({"images.size_px": size_px})
    assert latents_of_recipe(recipe) == latents
