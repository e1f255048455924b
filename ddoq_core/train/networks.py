"""Teachers and students: any timm model, ConvNet-D and ResNetAP-10 of the distillation field, ResNets of CIFAR.

A classifier takes images in [0, 1] and normalises them itself, so its folder says all about its input.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self, cast

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from ddoq_core.devices import best_device, is_compiling, memory_format
from ddoq_core.errors import InvalidInput
from ddoq_core.loading import fill, read_tensors
from ddoq_core.train.architectures import (
    AT_SIZE,
    CONVNET,
    INSTANCE_NORM,
    RESNET,
    RESNETAP,
    SMALL_STEM,
    TOGETHER,
    initialisation,
    is_change,
    unknown_architecture,
)
from ddoq_core.train.convnets import ResNetAP10, SmallResNet, convnet


class Classifier(nn.Module):
    """A network behind its input normalisation: (B, 3, S, S) in [0, 1] → logits (B, num_classes)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.has_strides = any(isinstance(part, nn.Conv2d) and max(part.stride) > 1 for part in network.modules())
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x - self.mean) / self.std)

    def placed(self) -> Self:
        """On the device where it runs."""
        device = best_device()
        return self.to(device).to(memory_format=memory_format(device))

    def compiled(self) -> Classifier:
        """The same weights behind torch.compile where that is asked for (see ddoq_core.devices), for each size of its
        batches: so it is for a training, which has two."""
        if not is_compiling():
            return self
        network = cast(nn.Module, torch.compile(self.network, dynamic=False))
        fast = Classifier(network, (0.0,) * 3, (1.0,) * 3)
        fast.mean, fast.std = self.mean, self.std
        return fast


@dataclass(frozen=True)
class ClassifierSpec:
    """What a classifier is built from: its architecture by name (see build_network), and the shape of its task."""

    architecture: str
    num_classes: int
    size_px: int


def build_classifier(spec: ClassifierSpec, *, seed: int = 0) -> Classifier:
    """A fresh classifier, its weights drawn from the seed. Raises ValueError as build_network does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(spec)
    return Classifier(network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).placed()


def build_network(spec: ClassifierSpec, *, pretrained: bool = False) -> nn.Module:
    """A network by the name of its architecture:

    "convnet-D-W"     D blocks of width W with instance norm (arXiv 2006.05929)
    "A&B"             networks by these names side by side, see Ensemble
    "resnetap-10"     with instance norm (arXiv 2205.14959)
    "resnet-D-W"      the ResNet of D layers for CIFAR (arXiv 1512.03385), there of width 16: "resnet-20-16"
    any timm model    "resnet18" (initialised as torchvision's), "vit_tiny_patch16_224"; a name may go on with "+at-64",
                      which brings its pictures to 64 px first, and a ResNet's with "+small-stem", a 3×3 convolution of
                      stride 1 and no pooling, for pictures of 32 px, and with "+instance-norm"
    Raises ValueError for a name that is none of these.
    """
    if TOGETHER in spec.architecture:
        parts = [replace(spec, architecture=part) for part in spec.architecture.split(TOGETHER)]
        return Ensemble([build_classifier(part) for part in parts])
    name, *changes = spec.architecture.split("+")
    if match := CONVNET.fullmatch(spec.architecture):
        return convnet(int(match["depth"]), int(match["width"]), spec.num_classes, spec.size_px)
    if match := RESNET.fullmatch(spec.architecture):
        return SmallResNet(int(match["depth"]), int(match["width"]), spec.num_classes)
    if spec.architecture == RESNETAP:
        return ResNetAP10(spec.num_classes, spec.size_px)
    if not timm.is_model(name.split(".")[0]) or not all(map(is_change, changes)):
        raise unknown_architecture(spec.architecture)
    network = _timm_model(replace(spec, architecture=name), pretrained)
    if SMALL_STEM in changes:
        _shrink_stem(network, spec.architecture)
    if INSTANCE_NORM in changes:
        _normalise_by_instance(network, spec.architecture)
    sizes = [int(match["size_px"]) for match in map(AT_SIZE.fullmatch, changes) if match]
    if sizes:
        network.register_forward_pre_hook(partial(_brought_to, sizes[-1]))
    return network


class Ensemble(nn.Module):
    """Classifiers whose logits are averaged, as G-VBSM labels with several (arXiv 2311.17950, published code)."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)  # (B, C) of (n, B, C)


def join(members: Sequence[Classifier]) -> Classifier:
    """One classifier of several, each of which normalises its input itself."""
    return Classifier(Ensemble(members), (0.0,) * 3, (1.0,) * 3).placed()


def save_classifier(model: Classifier, spec: ClassifierSpec, folder: Path) -> None:
    """Write model.safetensors and config.json."""
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(spec)))


def load_classifier(folder: Path) -> Classifier:
    """Read what save_classifier wrote, in eval mode. Raises ValueError for tensors that do not fit."""
    model = build_classifier(ClassifierSpec(**json.loads((folder / "config.json").read_text())))
    fill(model, read_tensors(folder / "model.safetensors"), folder)
    return model.eval().requires_grad_(False)


def _timm_model(spec: ClassifierSpec, pretrained: bool) -> nn.Module:
    try:
        described = timm.get_pretrained_cfg(spec.architecture)
    except RuntimeError as error:
        raise InvalidInput(f"architecture {spec.architecture!r}: {error}") from error
    one_size = described is not None and described.fixed_input_size  # a transformer is built for pictures of one size
    size = {"img_size": spec.size_px} if one_size else {}
    ones = {"zero_init_last": False} if initialisation(spec.architecture) else {}
    return timm.create_model(spec.architecture, num_classes=spec.num_classes, pretrained=pretrained, **size, **ones)


def _brought_to(size_px: int, _: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return F.interpolate(inputs[0], size=(size_px, size_px), mode="bilinear", antialias=True)


def _shrink_stem(network: nn.Module, architecture: str) -> None:
    """The stem of ResNets for CIFAR (arXiv 1512.03385, section 4.2)."""
    stem = getattr(network, "conv1", None)
    if not isinstance(stem, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise InvalidInput(
            f"architecture {architecture!r}: only ResNets whose stem is one convolution can have another"
        )
    network.conv1 = nn.Conv2d(3, stem.out_channels, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")


def _normalise_by_instance(network: nn.Module, architecture: str) -> None:
    """Instance norm in the place of every batch norm, as IDC has it (arXiv 2205.14959)."""
    norms = {name: norm for name, norm in network.named_modules() if isinstance(norm, nn.BatchNorm2d)}
    if not norms or any(type(norm) is not nn.BatchNorm2d for norm in norms.values()):
        raise InvalidInput(f"architecture {architecture!r} has no plain batch norm to replace")
    for name, norm in norms.items():
        network.set_submodule(name, nn.InstanceNorm2d(norm.num_features, affine=True))
