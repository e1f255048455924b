"""Models of finished artifacts, read, compared with their checksums, and loaded once per worker process.

A model's artifact holds either the weights themselves or `weights.json`, the name and hashes of weights elsewhere.
What a unit's inputs name by hash is therefore what the unit was made from.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from storage.artifact import Artifact
from tasks.inputs.given import MODEL, check_unchanged
from tasks.recipe.settings import DecodeConfig

PRECISION = "precision.json"
ELSEWHERE = "weights.json"


def load_autoencoder(artifact: Artifact) -> Any:
    """The autoencoder of an autoencoder artifact, in float32."""
    return _autoencoder(str(artifact.path), artifact.content())


def load_encoder(artifact: Artifact) -> Any:
    """The autoencoder of an autoencoder artifact, in the floating-point type that was chosen for encoding."""
    return _encoder(str(artifact.path), artifact.content())


def load_classifier(artifact: Artifact) -> Any:
    """The classifier of an artifact of the stage teacher or train."""
    return _classifier(str(artifact.path), artifact.content())


def load_prior(artifact: Artifact, decode: DecodeConfig, class_names: tuple[str, ...]) -> Any:
    """The diffusion prior of a prior artifact, conditioned on the recipe's classes."""
    return _prior(str(artifact.path), artifact.content(), class_names, decode.prompt, decode.negative_prompt)


def read_model(artifact: Artifact) -> Path:
    """The folder of an artifact's model, every file of which is as it was written. Raises Damaged; the artifact then
    counts as not done."""
    artifact.check(MODEL)
    return artifact.path / MODEL


@lru_cache(maxsize=2)
def _autoencoder(folder: str, content: str) -> Any:
    from ddoq_core.encode.autoencoder import load_autoencoder as load

    artifact = Artifact.open(Path(folder))
    model = read_model(artifact)
    told = _told_elsewhere(artifact, model)
    return load(model) if told is None else load(told["weights"], told["subfolder"])


@lru_cache(maxsize=2)
def _encoder(folder: str, content: str) -> Any:
    import torch

    chosen = json.loads((read_model(Artifact.open(Path(folder))) / PRECISION).read_text())
    dtype = getattr(torch, chosen["precision"])
    model = _autoencoder(folder, content)
    return (model if dtype == model.dtype else model.at_precision(dtype)).compiled()


@lru_cache(maxsize=2)
def _classifier(folder: str, content: str) -> Any:
    from ddoq_core.train.networks import load_classifier as load

    return load(read_model(Artifact.open(Path(folder))))


@lru_cache(maxsize=2)
def _prior(folder: str, content: str, class_names: tuple[str, ...], prompt: str, negative_prompt: str) -> Any:
    artifact = Artifact.open(Path(folder))
    model = read_model(artifact)
    told = _told_elsewhere(artifact, model)
    if told is None:
        from ddoq_core.decode.flow import load_trained_prior

        return load_trained_prior(model)
    return load_given_prior(told["kind"], told["weights"], class_names, prompt, negative_prompt)


def _told_elsewhere(artifact: Artifact, model: Path) -> dict[str, Any] | None:
    """What is said of weights elsewhere, which are as they were; None where the model is the artifact's own."""
    if not (model / ELSEWHERE).exists():
        return None
    told: dict[str, Any] = json.loads((model / ELSEWHERE).read_text())
    check_unchanged(artifact, told)
    return told


def load_given_prior(
    kind: str, weights: str, class_names: tuple[str, ...], prompt: str = "{name}", negative_prompt: str = ""
) -> Any:
    """The prior of a diffusers pipeline. Raises OSError where there is none, ValueError for classes it lacks."""
    if kind == "dit":
        from ddoq_core.decode.dit import load_dit

        return load_dit(weights, class_names)
    from ddoq_core.decode.image_to_image import load_image_to_image
    from ddoq_core.decode.stable_diffusion import load_stable_diffusion
    from ddoq_core.imagenet import prompt_name

    load = load_stable_diffusion if kind == "stable-diffusion" else load_image_to_image
    return load(weights, [prompt.format(name=prompt_name(name)) for name in class_names], negative_prompt)
