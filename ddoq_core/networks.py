"""Teachers and students: any timm model, and the ConvNet-D of the distillation field.

A classifier takes images in [0, 1] and normalises them itself, so its folder says all about its input.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data import resolve_model_data_config
from torch import nn

from ddoq_core.devices import best_device

CONVNET = re.compile(r"convnet-(?P<depth>[1-9]\d*)-(?P<width>[1-9]\d*)")


class Classifier(nn.Module):
    """A network behind its input normalisation: (B, 3, S, S) in [0, 1] → logits (B, num_classes)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x - self.mean) / self.std)


@dataclass(frozen=True)
class ClassifierSpec:
    """What a classifier is built from: a timm model name or "convnet-D-W", and the shape of its task."""

    architecture: str
    num_classes: int
    size_px: int


def build_classifier(spec: ClassifierSpec, *, seed: int = 0, pretrained: bool = False) -> Classifier:
    """A fresh classifier, its weights drawn from the seed, or timm's pretrained one with its normalisation.

    "convnet-D-W" is D blocks of width W with instance norm (arXiv 2006.05929).
    Raises ValueError for an architecture that is neither that nor in timm.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if match := CONVNET.fullmatch(spec.architecture):
            network = _convnet(int(match["depth"]), int(match["width"]), spec.num_classes, spec.size_px)
        elif timm.is_model(spec.architecture.split(".")[0]):
            network = _timm_model(spec, pretrained)
        else:
            raise ValueError(f"architecture {spec.architecture!r} is neither a timm model nor convnet-DEPTH-WIDTH")
    if pretrained:
        described = resolve_model_data_config(network)
        return Classifier(network, described["mean"], described["std"]).to(best_device())
    return Classifier(network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).to(best_device())


def save_classifier(model: Classifier, spec: ClassifierSpec, folder: Path) -> None:
    """Write model.safetensors and config.json."""
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(spec)))


def load_classifier(folder: Path) -> Classifier:
    """Read what save_classifier wrote, in eval mode."""
    model = build_classifier(ClassifierSpec(**json.loads((folder / "config.json").read_text())))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval().requires_grad_(False)


def load_checkpoint(model: Classifier, path: str) -> None:
    """Load a network's weights (.safetensors, or a torch state dict). Raises ValueError where they do not fit."""
    state = (
        load_file(path) if path.endswith(".safetensors") else torch.load(path, map_location="cpu", weights_only=True)
    )
    try:
        model.network.load_state_dict(state.get("state_dict", state))
    except RuntimeError as error:
        raise ValueError(f"checkpoint {path} does not fit: {str(error).splitlines()[0]}") from error


def _timm_model(spec: ClassifierSpec, pretrained: bool) -> nn.Module:
    try:
        described = timm.get_pretrained_cfg(spec.architecture)
    except RuntimeError as error:
        raise ValueError(f"architecture {spec.architecture!r}: {error}") from error
    one_size = described is not None and described.fixed_input_size  # a transformer is built for pictures of one size
    size = {"img_size": spec.size_px} if one_size else {}
    return timm.create_model(spec.architecture, num_classes=spec.num_classes, pretrained=pretrained, **size)


def _convnet(depth: int, width: int, num_classes: int, size_px: int) -> nn.Module:
    layers: list[nn.Module] = []
    for block in range(depth):
        layers += [
            nn.Conv2d(3 if block == 0 else width, width, 3, padding=1),
            nn.GroupNorm(width, width),
            nn.ReLU(),
            nn.AvgPool2d(2),
        ]
    side = size_px // 2**depth
    if side == 0:
        raise ValueError(f"convnet-{depth}-{width} halves {size_px} px away: at most {size_px.bit_length() - 1} blocks")
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side * side, num_classes))
