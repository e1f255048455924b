"""Whether the models of a recipe can be, and a prior fits its classes and latents, told before a run.

Looks at names and configuration files alone, and only of weights in a local folder: those of a hub name are checked
when their stage loads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, Field, PositiveInt, ValidationError

from ddoq_core.train.architectures import check_architecture
from storage.errors import UsageError
from tasks.inputs.given import WeightsError, local_weights
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import TrainedAutoencoder, TrainedPrior

PIPELINES = {
    "dit": ("DiTPipeline",),
    "stable-diffusion": ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
    "image-to-image": (
        *("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
        *("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline"),
        "PixArtAlphaPipeline",
        "PixArtSigmaPipeline",
        "SanaPipeline",
    ),
}


class PipelineFile(BaseModel):
    """What counts in model_index.json."""

    class_name: str = Field(alias="_class_name")
    id2label: dict[int, str] | None = None


class DenoiserFile(BaseModel):
    """What counts in the configuration of a U-Net."""

    in_channels: PositiveInt


class TransformerFile(DenoiserFile):
    """What counts in the configuration of a diffusion transformer."""

    sample_size: PositiveInt
    num_embeds_ada_norm: PositiveInt


class AutoencoderFile(BaseModel):
    """What counts in the configuration of an AutoencoderKL, -Tiny or -DC; of another kind nothing is known."""

    block_out_channels: list[PositiveInt] = []
    encoder_block_out_channels: list[PositiveInt] = []
    latent_channels: PositiveInt = 4


File = TypeVar("File", bound=BaseModel)


class Latents(NamedTuple):
    """What an autoencoder makes of the recipe's images: channels, side, and pixels per position along a side."""

    channels: int
    side: int
    factor: int


def check_models(recipe: Recipe) -> None:
    """Raise UserError, with value and remedy, for models that cannot be, whatever the data are."""
    names = {
        "teacher.architecture": recipe.teacher.architectures,
        "train.architectures": recipe.train.architectures,
    }
    for setting, architectures in names.items():
        for name in architectures:
            try:
                check_architecture(name, recipe.images.for_training.size_px)
            except ValueError as error:
                raise UsageError(f"{setting}: {error}") from error
    checkpoint = recipe.teacher.weights
    if checkpoint not in (None, "pretrained") and not Path(checkpoint).expanduser().is_file():
        raise WeightsError(f"teacher.weights={checkpoint!r}: no such file; give a checkpoint's, or 'pretrained'")
    latents = latents_of_recipe(recipe) if recipe.quantises else None
    if latents and recipe.images.size_px % latents.factor:
        raise UsageError(
            f"images.size_px={recipe.images.size_px} does not divide by the autoencoder's factor {latents.factor}: "
            f"set it to a multiple of {latents.factor}"
        )
    check_prior(recipe, ())


def check_prior(recipe: Recipe, class_names: Sequence[str]) -> None:
    """Raise WeightsError, with value and remedy, for a prior that cannot decode this recipe's latents and classes."""
    if not recipe.through_prior:
        return
    prior, latents = recipe.prior, latents_of_recipe(recipe)
    if isinstance(prior, TrainedPrior):
        patch = prior.train.patch_size
        if latents and latents.side % patch:
            raise WeightsError(
                f"prior.train.patch_size={patch} does not divide the latents' side {latents.side}: change it, or "
                f"set images.size_px to a multiple of {patch * latents.factor}"
            )
        return
    folder = local_weights(prior.weights)
    if folder is None:
        return
    index = _read(PipelineFile, folder / "model_index.json", "prior.weights")
    if index.class_name not in PIPELINES[prior.kind]:
        fitting = " or ".join(name for name in PIPELINES[prior.kind] if "Img2Img" not in name)
        raise WeightsError(
            f"prior.weights={prior.weights!r} holds a {index.class_name[:100]!r}, prior.kind={prior.kind!r} needs a "
            f"{fitting}: change one of them"
        )
    if prior.kind == "dit":
        transformer = _read(TransformerFile, folder / "transformer" / "config.json", "prior.weights")
        _check_shape(prior.weights, transformer, latents)
        _check_classes(prior.weights, index, transformer, class_names)
    else:
        part = "transformer" if (folder / "transformer").is_dir() else "unet"
        denoiser = _read(DenoiserFile, folder / part / "config.json", "prior.weights")
        _check_shape(prior.weights, denoiser, latents)


def _check_shape(weights: str, network: DenoiserFile, latents: Latents | None) -> None:
    if latents is None:
        return
    if network.in_channels != latents.channels:
        raise WeightsError(
            f"prior.weights={weights!r} takes latents of {network.in_channels} channels, the autoencoder's have "
            f"{latents.channels}: take the autoencoder of the same folder (autoencoder.subfolder=vae)"
        )
    if isinstance(network, TransformerFile) and network.sample_size != latents.side:
        side = network.sample_size
        raise WeightsError(
            f"prior.weights={weights!r} takes latents of {side}×{side}, the autoencoder's are "
            f"{latents.side}×{latents.side}: set images.size_px={side * latents.factor}"
        )


def _check_classes(weights: str, index: PipelineFile, network: TransformerFile, class_names: Sequence[str]) -> None:
    from ddoq_core.imagenet import dit_ids

    labels = {label.strip(): number for number, line in (index.id2label or {}).items() for label in line.split(",")}
    try:
        dit_ids(class_names, labels, network.num_embeds_ada_norm)
    except ValueError as error:
        raise WeightsError(
            f"prior.weights={weights!r} does not fit: {error}; name the class folders by WordNet id or as it names "
            "them, or train a prior"
        ) from error


def latents_of_recipe(recipe: Recipe) -> Latents | None:
    """The recipe's latents; None where the autoencoder is not on this machine or is of an unknown kind."""
    autoencoder = recipe.autoencoder
    if isinstance(autoencoder, TrainedAutoencoder):
        own = autoencoder.train
        shape = own.shape(recipe.images.size_px)
        levels, channels = len(shape["channels"]), shape["latent_channels"]
    else:
        folder = local_weights(autoencoder.weights)
        if folder is None:
            return None
        folder = folder / (autoencoder.subfolder or "")
        if (folder / "encoder.safetensors").is_file():  # TAEF2
            levels, channels = 4, 32
        else:
            config = _read(AutoencoderFile, folder / "config.json", "autoencoder.weights")
            blocks = config.block_out_channels or config.encoder_block_out_channels
            if not blocks:
                return None
            levels, channels = len(blocks), config.latent_channels
    factor = 2 ** (levels - 1)
    return Latents(channels, recipe.images.size_px // factor, factor)


def _read(kind: type[File], path: Path, setting: str) -> File:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError("no file")
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        problem = str(error)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"{where!a}: {first['msg']}" if where else first["msg"]
    raise WeightsError(f"{setting}: {path} cannot be read ({problem}): give a diffusers folder")
