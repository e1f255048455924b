"""Whether a prior fits the recipe's classes and latents, told before a run from configuration files alone.

Only weights in a local folder can be looked at: those of a hub name are checked when the stage prior loads them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.inputs.given import WeightsError, local_weights
from tasks.recipe.settings import Recipe

PIPELINES = {
    "dit": ("DiTPipeline",),
    "stable-diffusion": ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
}


class Latents(NamedTuple):
    """What an autoencoder makes of the recipe's images: channels, side, and pixels per position along a side."""

    channels: int
    side: int
    factor: int


def check_prior(recipe: Recipe, class_names: Sequence[str]) -> None:
    """Raise WeightsError, with value and remedy, for a prior that cannot decode this recipe's latents and classes."""
    if not recipe.through_prior:
        return
    prior, latents = recipe.prior, _latents(recipe)
    if prior.train is not None:
        patch = prior.train.patch_size
        if latents and latents.side % patch:
            raise WeightsError(
                f"prior.train.patch_size={patch} does not divide the latents' side {latents.side}: change it, or "
                f"set images.size_px to a multiple of {patch * latents.factor}"
            )
        return
    assert prior.weights is not None
    folder = local_weights(prior.weights)
    if folder is None:
        return
    index = _read(folder, "model_index.json", "prior.weights")
    if index.get("_class_name") not in PIPELINES[prior.kind]:
        raise WeightsError(
            f"prior.weights={prior.weights!r} holds a {index.get('_class_name')}, prior.kind={prior.kind!r} needs a "
            f"{PIPELINES[prior.kind][0]}: change one of them"
        )
    network = _read(folder, f"{'transformer' if prior.kind == 'dit' else 'unet'}/config.json", "prior.weights")
    if latents:
        _check_shape(prior.weights, network, latents, one_size=prior.kind == "dit")
    if prior.kind == "dit":
        _check_classes(prior.weights, index, network, class_names)


def _check_shape(weights: str, network: dict[str, Any], latents: Latents, *, one_size: bool) -> None:
    if network["in_channels"] != latents.channels:
        raise WeightsError(
            f"prior.weights={weights!r} takes latents of {network['in_channels']} channels, the autoencoder's have "
            f"{latents.channels}: take the autoencoder of the same folder (autoencoder.subfolder=vae)"
        )
    if one_size and network["sample_size"] != latents.side:
        side = network["sample_size"]
        raise WeightsError(
            f"prior.weights={weights!r} takes latents of {side}×{side}, the autoencoder's are "
            f"{latents.side}×{latents.side}: set images.size_px={side * latents.factor}"
        )


def _check_classes(weights: str, index: dict[str, Any], network: dict[str, Any], class_names: Sequence[str]) -> None:
    from ddoq_core.imagenet import dit_ids

    named = index.get("id2label", {}).items()
    labels = {label.strip(): int(number) for number, line in named for label in line.split(",")}
    try:
        dit_ids(class_names, labels, network["num_embeds_ada_norm"])
    except ValueError as error:
        raise WeightsError(
            f"prior.weights={weights!r} does not fit: {error}; name the class folders by WordNet id or as it names "
            "them, or train a prior"
        ) from error


def _latents(recipe: Recipe) -> Latents | None:
    """The recipe's latents; None where the autoencoder is not on this machine or is of an unknown kind."""
    autoencoder = recipe.autoencoder
    if autoencoder.train is not None:
        levels, channels = len(autoencoder.train.channels), autoencoder.train.latent_channels
    else:
        assert autoencoder.weights is not None
        folder = local_weights(autoencoder.weights)
        if folder is None:
            return None
        folder = folder / (autoencoder.subfolder or "")
        if (folder / "encoder.safetensors").is_file():  # TAEF2
            levels, channels = 4, 32
        else:
            config = _read(folder, "config.json", "autoencoder.weights")
            blocks = config.get("block_out_channels") or config.get("encoder_block_out_channels")
            if not blocks:
                return None
            levels, channels = len(blocks), config["latent_channels"]
    factor = 2 ** (levels - 1)
    return Latents(channels, recipe.images.size_px // factor, factor)


def _read(folder: Path, name: str, setting: str) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / name).read_text()))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{setting}: {folder / name} cannot be read ({error}): give a diffusers folder") from error
