"""Classifiers: built by name, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from ddoq_core.train.networks import ClassifierSpec, build_classifier, load_classifier, save_classifier


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


def norms_of(model: nn.Module) -> set[type[nn.Module]]:
    return {type(m) for m in model.modules() if "Norm" in type(m).__name__}


def test_a_resnet_with_a_small_stem_keeps_pictures_of_32_px() -> None:
    large, small = (build_classifier(ClassifierSpec(f"resnet18{x}", 10, 32)).network for x in ("", "+small-stem"))
    assert large.forward_features(pictures()).shape == (4, 512, 1, 1)
    assert small.forward_features(pictures()).shape == (4, 512, 4, 4)
    numbers = [sum(p.numel() for p in network.parameters()) for network in (large, small)]
    assert numbers[0] - numbers[1] == 64 * 3 * (49 - 9)


def test_instance_norm_takes_the_place_of_every_batch_norm(tmp_path: Path) -> None:
    spec = ClassifierSpec("resnet18+small-stem+instance-norm", 10, 32)
    model = build_classifier(spec, seed=1)
    assert norms_of(model) == {nn.InstanceNorm2d}
    save_classifier(model.eval(), spec, tmp_path)
    assert torch.equal(load_classifier(tmp_path)(pictures()), model(pictures()))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_begins_as_torchvisions(name: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, num_classes=10).state_dict()
    ours = build_classifier(ClassifierSpec(name, 10, 224), seed=0).network.state_dict()
    assert ours.keys() == theirs.keys()
    for key, want in theirs.items():
        if want.dim() > 1:
            torch.testing.assert_close(ours[key].std(), want.std(), rtol=0.05, atol=0)
        elif not key.startswith("fc."):
            assert torch.equal(ours[key], want), key


def test_a_network_may_bring_its_pictures_to_another_size(tmp_path: Path) -> None:
    spec = ClassifierSpec("test_resnet+at-64", 5, 32)
    model = build_classifier(spec).eval()
    plain = build_classifier(ClassifierSpec("test_resnet", 5, 64)).eval()
    plain.load_state_dict(model.state_dict())
    large = nn.functional.interpolate(pictures(), size=(64, 64), mode="bilinear", antialias=True)
    torch.testing.assert_close(model(pictures()), plain(large))
    save_classifier(model, spec, tmp_path)
    torch.testing.assert_close(load_classifier(tmp_path)(pictures()), plain(large))


@pytest.mark.parametrize("name", ["resnet18+small-stem", "resnet50"])
def test_residual_branches_have_a_gradient_at_first(name: str) -> None:
    model = build_classifier(ClassifierSpec(name, 10, 32), seed=0)
    model(pictures()).square().sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if n.endswith("conv1.weight")}
    assert all(grad is not None and grad.abs().max() > 0 for grad in gradients.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18+large-stem", "is neither"),
        ("convnet-3-16+small-stem", "is neither"),
        ("vit_tiny_patch16_224+small-stem", "only ResNets"),
        ("vit_tiny_patch16_224+instance-norm", "no plain batch norm"),
        ("efficientnet_b0+instance-norm", "no plain batch norm"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_classifier(ClassifierSpec(name, 2, 32))
