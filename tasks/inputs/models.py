"""Models of finished artifacts, loaded once per worker process.

A model's artifact holds either the weights themselves or `weights.json`, the name and hashes of weights elsewhere.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from storage.artifact import Artifact
from storage.errors import UserError
from storage.files import hash_file, list_files
from tasks.recipe.settings import DecodeConfig

MODEL = "model"
PRECISION = "precision.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".json")


class WeightsError(UserError, ValueError):
    """Weights are missing or do not fit; the message names them and the remedy."""


def local_weights(weights: str) -> Path | None:
    """The folder or file of weights that are on this machine, None for a hub name.

    Raises WeightsError for something that looks like a path and is not there.
    """
    path = Path(weights).expanduser()
    if path.exists():
        return path
    if weights.startswith(("/", ".", "~")) or weights.count("/") != 1:
        raise WeightsError(f"weights {weights!r}: no such folder; give a diffusers folder or a hub name OWNER/NAME")
    return None


def describe_weights(weights: str) -> dict[str, Any]:
    """What identifies weights: hashes of a local folder's or file's content, else the hub name. Raises WeightsError."""
    path = local_weights(weights)
    if path is None:
        return {"weights": weights, "files": {}}
    if path.is_file():
        return {"weights": weights, "files": {path.name: hash_file(path)}}
    files = [f for f in list_files(path) if f.suffix in WEIGHT_SUFFIXES]
    return {"weights": weights, "files": {f.relative_to(path).as_posix(): hash_file(f) for f in files}}


def load_autoencoder(artifact: Artifact) -> Any:
    """The autoencoder of an autoencoder artifact, in float32."""
    return _autoencoder(str(artifact.path / MODEL), artifact.content())


def load_encoder(artifact: Artifact) -> Any:
    """The autoencoder of an autoencoder artifact, in the floating-point type that was chosen for encoding."""
    return _encoder(str(artifact.path / MODEL), artifact.content())


def load_classifier(artifact: Artifact) -> Any:
    """The classifier of a teacher artifact."""
    return _classifier(str(artifact.path / MODEL), artifact.content())


def load_prior(artifact: Artifact, decode: DecodeConfig, class_names: tuple[str, ...]) -> Any:
    """The diffusion prior of a prior artifact, conditioned on the recipe's classes."""
    return _prior(str(artifact.path / MODEL), artifact.content(), class_names, decode.prompt, decode.negative_prompt)


@lru_cache(maxsize=2)
def _autoencoder(folder: str, content: str) -> Any:
    from ddoq_core.encode.autoencoder import load_autoencoder as load

    elsewhere = Path(folder) / "weights.json"
    if not elsewhere.exists():
        return load(folder)
    told = json.loads(elsewhere.read_text())
    return load(told["weights"], told["subfolder"])


@lru_cache(maxsize=2)
def _encoder(folder: str, content: str) -> Any:
    import torch

    dtype = getattr(torch, json.loads((Path(folder) / PRECISION).read_text())["precision"])
    model = _autoencoder(folder, content)
    return (model if dtype == model.dtype else model.at_precision(dtype)).compiled()


@lru_cache(maxsize=2)
def _classifier(folder: str, content: str) -> Any:
    from ddoq_core.train.networks import load_classifier as load

    return load(Path(folder))


@lru_cache(maxsize=2)
def _prior(folder: str, content: str, class_names: tuple[str, ...], prompt: str, negative_prompt: str) -> Any:
    elsewhere = Path(folder) / "weights.json"
    if not elsewhere.exists():
        from ddoq_core.decode.training import load_trained_prior

        return load_trained_prior(Path(folder))
    told = json.loads(elsewhere.read_text())
    return load_given_prior(told["kind"], told["weights"], class_names, prompt, negative_prompt)


def load_given_prior(
    kind: str, weights: str, class_names: tuple[str, ...], prompt: str = "{name}", negative_prompt: str = ""
) -> Any:
    """The prior of a diffusers pipeline. Raises OSError where there is none, ValueError for classes it lacks."""
    if kind == "dit":
        from ddoq_core.decode.dit import load_dit

        return load_dit(weights, class_names)
    from ddoq_core.decode.stable_diffusion import load_stable_diffusion
    from ddoq_core.imagenet import describe

    return load_stable_diffusion(weights, [prompt.format(name=describe(name)) for name in class_names], negative_prompt)
