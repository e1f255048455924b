"""Classifiers whose weights come from elsewhere: timm's hub or a checkpoint, for all or some of ImageNet's classes."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from ddoq_core.errors import InvalidInput
from ddoq_core.imagenet import imagenet_index, is_imagenet
from ddoq_core.loading import fill, read_tensors
from ddoq_core.train.networks import Classifier, ClassifierSpec, build_classifier, build_network

IMAGENET_CLASSES = 1000
PUBLISHED = {  # top-1 in per cent on ILSVRC 2012's validation images, as torchvision tells it of these weights
    "resnet18.tv_in1k": 69.758,
    "resnet34.tv_in1k": 73.314,
    "resnet50.tv_in1k": 76.130,
    "resnet101.tv_in1k": 77.374,
    "resnet152.tv_in1k": 78.312,
}


def unlike_published(architecture: str, top1: float, class_names: Sequence[str], num_images: int) -> str:
    """What is odd about a top-1 (0 to 1) on that many held-out images of ImageNet-1K: that it is more than two points,
    and more than two standard deviations of chance, off the published one. "" where nothing is, or nothing is known."""
    published = PUBLISHED.get(architecture, 0) / 100
    if not published or not is_imagenet(class_names):
        return ""
    if abs(top1 - published) <= 0.02 + 2 * (published * (1 - published) / num_images) ** 0.5:
        return ""
    return (
        f"teacher {architecture} has top-1 {top1:.1%} on {num_images} held-out images, published is {published:.1%}: "
        "look whether these are ILSVRC's validation images, whole and under their own classes"
    )


def center_crop_of(architecture: str) -> float | None:
    """The share of an image's short side that timm's weights of a network are evaluated on; None where it has none."""
    described = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    return described.crop_pct if described else None


def load_pretrained(spec: ClassifierSpec, class_names: Sequence[str]) -> Classifier:
    """timm's pretrained network with its normalisation, its head brought to the classes.

    Raises ValueError where the head's classes are not these: neither as many, nor ImageNet's by their WordNet ids.
    """
    described = timm.get_pretrained_cfg(spec.architecture)
    num_classes = described.num_classes if described else None
    if num_classes is None:
        raise InvalidInput(f"timm has no pretrained weights of {spec.architecture!r}")
    network = build_network(replace(spec, num_classes=num_classes), pretrained=True)
    _fit_head(network, num_classes, class_names, f"timm's {spec.architecture}")
    return _normalised(network)


def load_checkpoint(spec: ClassifierSpec, path: str, class_names: Sequence[str]) -> Classifier:
    """A whole classifier's weights, as the stage teacher writes them, or a network's (.safetensors or a state dict).

    A network of timm is given timm's normalisation, and one of ImageNet's 1,000 classes is brought to the classes by
    their WordNet ids. Raises ValueError where the weights do not fit.
    """
    state = _read(path)
    if any(name.startswith("network.") for name in state):
        model = build_classifier(spec)
        fill(model, state, f"checkpoint {path}")
        return model
    network = build_network(spec)
    try:
        fill(network, state, f"checkpoint {path}")
    except ValueError:
        if len(class_names) == IMAGENET_CLASSES or None in map(imagenet_index, class_names):
            raise
        network = build_network(replace(spec, num_classes=IMAGENET_CLASSES))
        fill(network, state, f"checkpoint {path}")
        _fit_head(network, IMAGENET_CLASSES, class_names, path)
    return _normalised(network)


def load_start(spec: ClassifierSpec, path: str | None, *, seed: int = 0) -> Classifier:
    """A network to go on with in training: of a checkpoint, or where none is given of timm's pretrained weights, all
    but the last layer, which is drawn from the seed. With its normalisation. Raises ValueError where the weights do not
    fit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(spec, pretrained=path is None)
    if path is not None:
        last = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
        head = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(f"{last}.")}
        state = {name.removeprefix("network."): tensor for name, tensor in _read(path).items()}
        fill(network, {**{k: v for k, v in state.items() if k not in ("mean", "std")}, **head}, f"checkpoint {path}")
    return _normalised(network)


def _normalised(network: nn.Module) -> Classifier:
    if not hasattr(network, "pretrained_cfg"):
        return Classifier(network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).placed()
    data = resolve_model_data_config(network)
    return Classifier(network, data["mean"], data["std"]).placed()


def _read(path: str) -> dict[str, Any]:
    if path.endswith(".safetensors"):
        return read_tensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InvalidInput(f"checkpoint {path} cannot be read as tensors by name: give a state dict of them") from error
    if not isinstance(state, dict):
        raise InvalidInput(f"checkpoint {path} holds a {type(state).__name__}: give a state dict, tensors by name")
    inner = state.get("state_dict", state)
    return dict(inner) if isinstance(inner, dict) else state


def _fit_head(network: Any, num_classes: int, class_names: Sequence[str], what: str) -> None:
    """Keep of a head of ImageNet's 1,000 classes the outputs of these, by WordNet id and in this order."""
    rows = [imagenet_index(name) for name in class_names]
    if num_classes != IMAGENET_CLASSES or None in rows:
        if num_classes == len(class_names):
            return
        unknown = next((name for name, row in zip(class_names, rows, strict=True) if row is None), class_names[0])
        raise InvalidInput(
            f"{what} knows {num_classes} classes, and {unknown!r} of the recipe's {len(class_names)} is not among them "
            "by WordNet id: give a checkpoint of these classes, or no teacher.weights to train one"
        )
    head = network.get_classifier() if hasattr(network, "get_classifier") else network
    if not isinstance(head, nn.Linear):
        raise InvalidInput(f"{what} ends in {type(head).__name__}, of which single classes cannot be kept")
    weight, bias = head.weight.data[rows], head.bias.data[rows]
    network.reset_classifier(len(class_names))
    network.get_classifier().load_state_dict({"weight": weight, "bias": bias})
