"""Classifiers: built by name, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ddoq_core.networks import ClassifierSpec, build_classifier, load_checkpoint, load_classifier, save_classifier


def pictures(size: int = 32) -> torch.Tensor:
    return torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", ["convnet-3-16", "resnet10t"])
def test_a_saved_classifier_gives_equal_logits(tmp_path: Path, architecture: str) -> None:
    spec = ClassifierSpec(architecture, 5, 32)
    model = build_classifier(spec, seed=3)
    model.train()(pictures())  # moves the running statistics
    save_classifier(model.eval(), spec, tmp_path)
    loaded = load_classifier(tmp_path)
    with torch.inference_mode():
        assert torch.equal(loaded(pictures()), model(pictures()))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == architecture


def test_weights_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    spec = ClassifierSpec("convnet-1-4", 2, 8)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, same, other = (build_classifier(spec, seed=seed).network[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_classifier_normalises_its_input_itself() -> None:
    model = build_classifier(ClassifierSpec("convnet-1-4", 2, 8)).eval()
    x = pictures(8)
    torch.testing.assert_close(model(x), model.network((x - 0.5) / 0.5))


def test_a_convnet_is_the_one_of_the_field() -> None:
    model = build_classifier(ClassifierSpec("convnet-3-128", 10, 32))
    kinds = [type(layer) for layer in model.network]
    assert kinds == [nn.Conv2d, nn.GroupNorm, nn.ReLU, nn.AvgPool2d] * 3 + [nn.Flatten, nn.Linear]
    assert sum(p.numel() for p in model.parameters()) == 320_010  # ConvNetD3 on CIFAR-10, arXiv 2006.05929


@pytest.mark.parametrize(
    "name", ["resnet1000", "convnet", "convnet-3", "convnet-3-16-2", "convnet-0-16", "", "RESNET18"]
)
def test_an_unknown_architecture_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"architecture '{name}' is neither"):
        build_classifier(ClassifierSpec(name, 2, 32))


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(ValueError, match=r"architecture 'resnet18\.nope': Invalid pretrained tag"):
        build_classifier(ClassifierSpec("resnet18.nope", 2, 32))


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "resnet10t", "mobilenetv3_small_050"])
def test_a_timm_model_takes_pictures_of_the_task(tmp_path: Path, architecture: str) -> None:
    spec = ClassifierSpec(architecture, 3, 32)
    model = build_classifier(spec).eval()
    assert model(pictures()).shape == (4, 3)
    save_classifier(model, spec, tmp_path)
    assert torch.equal(load_classifier(tmp_path)(pictures()), model(pictures()))


def test_a_convnet_that_halves_its_picture_away_is_refused() -> None:
    assert build_classifier(ClassifierSpec("convnet-3-4", 2, 8))(pictures(8)).shape == (4, 2)
    with pytest.raises(ValueError, match="convnet-4-4 halves 8 px away: at most 3 blocks"):
        build_classifier(ClassifierSpec("convnet-4-4", 2, 8))


@pytest.mark.parametrize("size_px", [7, 9, 28, 30])
def test_a_convnet_takes_sizes_that_do_not_halve_evenly(size_px: int) -> None:
    model = build_classifier(ClassifierSpec("convnet-2-4", 2, size_px))
    assert model(pictures(size_px)).shape == (4, 2)


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "checkpoint"])
def test_a_checkpoint_of_a_network_is_loaded(tmp_path: Path, kind: str) -> None:
    spec = ClassifierSpec("convnet-1-4", 2, 8)
    source, target = build_classifier(spec, seed=1), build_classifier(spec, seed=2)
    state = source.network.state_dict()
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if kind == "state dict" else {"state_dict": state, "epoch": 3}, path)
    load_checkpoint(target, str(path))
    assert torch.equal(source(pictures(8)), target(pictures(8)))
    with pytest.raises(ValueError, match=r"checkpoint .* does not fit"):
        load_checkpoint(build_classifier(ClassifierSpec("convnet-1-5", 2, 8)), str(path))
