"""Networks of the field that timm does not have: ConvNet-D and ResNetAP-10 of distillation, the ResNets for CIFAR."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


def convnet(depth: int, width: int, num_classes: int, size_px: int) -> nn.Module:
    """ConvNet-D of D blocks with instance norm (arXiv 2006.05929): (B, 3, S, S) → logits (B, num_classes).

    Raises ValueError for more blocks than the pictures can be halved.
    """
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


class ResNetAP10(nn.Module):
    """Four stages of one basic block, 64 to 512 wide, with instance norm: (B, 3, S, S) → logits (B, num_classes).

    The student of the hard-label tables (IDC, arXiv 2205.14959): averages take the place of strides. The stem depends
    on the side of the pictures, as published: up to 64 px a 3×3 convolution, up to 128 px that and halved, above a 7×7
    convolution and quartered.
    """

    def __init__(self, num_classes: int, size_px: int) -> None:
        super().__init__()
        kernel, pool = (3, 1) if size_px <= 64 else (3, 2) if size_px <= 128 else (7, 4)
        self.stem = nn.Sequential(*_convolution(3, 64, kernel), nn.ReLU(), nn.AvgPool2d(pool))
        self.stages = nn.Sequential(_Block(64, 64, 1), _Block(64, 128, 2), _Block(128, 256, 2), _Block(256, 512, 2))
        self.head = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


class _Block(nn.Module):
    """Two convolutions beside a shortcut; where a ResNet strides, both paths are averaged."""

    def __init__(self, width_in: int, width: int, pool: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*_convolution(width_in, width, 3), nn.ReLU(), nn.AvgPool2d(pool))
        self.second = nn.Sequential(*_convolution(width, width, 3))
        self.shortcut = nn.Sequential()
        if pool > 1:
            convolution, norm = _convolution(width_in, width, 1)
            self.shortcut = nn.Sequential(convolution, nn.AvgPool2d(pool), norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class SmallResNet(nn.Module):
    """The ResNet of D = 6·n + 2 layers for CIFAR (arXiv 1512.03385, section 4.2): (B, 3, S, S) → logits.

    Three stages of n basic blocks with batch norm, W, 2·W and 4·W wide (W is 16 there); a shortcut between stages takes
    every second pixel, and zeros for new channels.
    """

    def __init__(self, depth: int, width: int, num_classes: int) -> None:
        super().__init__()
        widths = [width << stage for stage in range(3) for _ in range(depth // 6)]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        pairs = zip([width, *widths], widths, strict=False)
        self.blocks = nn.Sequential(*(_PlainBlock(before, after) for before, after in pairs))
        self.head = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class _PlainBlock(nn.Module):
    """Two 3×3 convolutions with batch norm beside a shortcut without weights."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.stride, self.new = width // width_in, width - width_in
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(at, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width))
            for at, stride in ((width_in, self.stride), (width, 1))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))
        return F.relu(self.second(F.relu(self.first(x))) + shortcut)


def _convolution(width_in: int, width: int, kernel: int) -> tuple[nn.Module, nn.Module]:
    norm = nn.InstanceNorm2d(width, affine=True)
    return nn.Conv2d(width_in, width, kernel, padding=kernel // 2, bias=False), norm
