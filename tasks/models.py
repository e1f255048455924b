"""Models of finished artifacts, loaded once per worker process.

A model's artifact holds either the weights themselves or `weights.json`, the name and hashes of weights elsewhere.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from storage.artifact import Artifact
from storage.files import hash_file, list_files
from tasks.config import DecodeConfig

MODEL = "model"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".json")


class WeightsError(ValueError):
    """Weights are missing or do not fit; the message names them and the remedy."""


def describe_weights(weights: str) -> dict[str, Any]:
    """What identifies weights: hashes of a local folder's or file's content, else the hub name.

    Raises WeightsError for something that looks like a path and is not there.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return {"weights": weights, "files": {path.name: hash_file(path)}}
    if path.is_dir():
        files = [f for f in list_files(path) if f.suffix in WEIGHT_SUFFIXES]
        return {"weights": weights, "files": {f.relative_to(path).as_posix(): hash_file(f) for f in files}}
    if weights.startswith(("/", ".", "~")) or weights.count("/") != 1:
        raise WeightsError(f"weights {weights!r}: no such folder; give a diffusers folder or a hub name OWNER/NAME")
    return {"weights": weights, "files": {}}


def load_autoencoder(artifact: Artifact) -> Any:
    """The AutoencoderKL of an autoencoder artifact."""
    return _autoencoder(str(artifact.path / MODEL), artifact.content())


def load_classifier(artifact: Artifact) -> Any:
    """The classifier of a teacher artifact."""
    return _classifier(str(artifact.path / MODEL), artifact.content())


def load_prior(artifact: Artifact, decode: DecodeConfig, class_names: tuple[str, ...]) -> Any:
    """The diffusion prior of a prior artifact, conditioned on the recipe's classes."""
    return _prior(str(artifact.path / MODEL), artifact.content(), class_names, decode.prompt, decode.negative_prompt)


@lru_cache(maxsize=2)
def _autoencoder(folder: str, content: str) -> Any:
    from ddoq_core.autoencoder import load_autoencoder as load

    elsewhere = Path(folder) / "weights.json"
    if not elsewhere.exists():
        return load(folder)
    told = json.loads(elsewhere.read_text())
    return load(told["weights"], told["subfolder"])


@lru_cache(maxsize=2)
def _classifier(folder: str, content: str) -> Any:
    from ddoq_core.networks import load_classifier as load

    return load(Path(folder))


@lru_cache(maxsize=2)
def _prior(folder: str, content: str, class_names: tuple[str, ...], prompt: str, negative_prompt: str) -> Any:
    from ddoq_core import prior
    from ddoq_core.class_names import describe

    elsewhere = Path(folder) / "weights.json"
    if not elsewhere.exists():
        return prior.load_trained_prior(Path(folder))
    told = json.loads(elsewhere.read_text())
    if told["kind"] == "dit":
        return prior.load_dit(told["weights"], class_names)
    prompts = [prompt.format(name=describe(name)) for name in class_names]
    return prior.load_stable_diffusion(told["weights"], prompts, negative_prompt)
