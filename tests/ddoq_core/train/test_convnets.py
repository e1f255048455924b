"""ConvNet-D and ResNetAP-10 are those of the field."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ddoq_core.train.networks import ClassifierSpec, build_classifier
from tests.ddoq_core.train.test_networks import norms_of, pictures


def test_a_convnet_is_the_one_of_the_field() -> None:
    model = build_classifier(ClassifierSpec("convnet-3-128", 10, 32))
    kinds = [type(layer) for layer in model.network]
    assert kinds == [nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.AvgPool2d] * 3 + [nn.Flatten, nn.Linear]
    assert sum(p.numel() for p in model.parameters()) == 320_010  # ConvNetD3 on CIFAR-10, arXiv 2006.05929


def test_a_convnet_that_halves_its_picture_away_is_refused() -> None:
    assert build_classifier(ClassifierSpec("convnet-3-4", 2, 8))(pictures(8)).shape == (4, 2)
    with pytest.raises(ValueError, match="convnet-4-4 halves 8 px away: at most 3 blocks"):
        build_classifier(ClassifierSpec("convnet-4-4", 2, 8))


@pytest.mark.parametrize("size_px", [7, 9, 28, 30])
def test_a_convnet_takes_sizes_that_do_not_halve_evenly(size_px: int) -> None:
    model = build_classifier(ClassifierSpec("convnet-2-4", 2, size_px))
    assert model(pictures(size_px)).shape == (4, 2)


def test_a_resnet_ap_is_the_one_of_the_field() -> None:
    model = build_classifier(ClassifierSpec("resnetap-10", 10, 224))
    weights = [64 * 3 * 49, 64 * 64 * 18, 64 * 128 * 9 + 128 * 128 * 9 + 64 * 128]
    weights += [128 * 256 * 9 + 256 * 256 * 9 + 128 * 256, 256 * 512 * 9 + 512 * 512 * 9 + 256 * 512]
    norms = 2 * (64 + 2 * 64 + 3 * 128 + 3 * 256 + 3 * 512)
    assert sum(p.numel() for p in model.parameters()) == sum(weights) + norms + 512 * 10 + 10
    assert norms_of(model) == {nn.InstanceNorm2d}
    assert all(m.stride == (1, 1) for m in model.modules() if isinstance(m, nn.Conv2d)), "it averages, never strides"


@pytest.mark.parametrize(("size_px", "kernel", "side"), [(32, 3, 4), (64, 3, 8), (65, 3, 4), (128, 3, 8), (256, 7, 8)])
def test_the_stem_of_a_resnet_ap_follows_the_pictures(size_px: int, kernel: int, side: int) -> None:
    network = build_classifier(ClassifierSpec("resnetap-10", 3, size_px)).network
    assert network.stem[0].kernel_size == (kernel, kernel)
    maps = network.stages(network.stem(torch.rand(2, 3, size_px, size_px)))
    assert maps.shape == (2, 512, side, side)


@pytest.mark.parametrize(("name", "millions"), [("resnet-20-16", 0.269722), ("resnet-56-16", 0.853018)])
def test_a_small_resnet_is_the_one_of_cifar(name: str, millions: float) -> None:
    model = build_classifier(ClassifierSpec(name, 10, 32))
    assert sum(p.numel() for p in model.parameters()) == round(1e6 * millions)  # arXiv 1512.03385, table 6
    assert norms_of(model) == {nn.BatchNorm2d}
    assert model.network.blocks(model.network.stem(pictures())).shape == (4, 64, 8, 8)
    assert model(pictures(24)).shape == (4, 10)


@pytest.mark.parametrize("name", ["resnet-18-16", "resnet-20", "resnet-20-0"])
def test_a_small_resnet_of_another_depth_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"architecture '{name}' is neither"):
        build_classifier(ClassifierSpec(name, 2, 32))
