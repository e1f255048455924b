"""Weights from elsewhere: they fit, or the refusal says why."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import ImageNetInfo
from torch import nn

from ddoq_core.imagenet import imagenet_index
from ddoq_core.train.networks import ClassifierSpec, build_classifier, save_classifier
from ddoq_core.train.pretrained import center_crop_of, load_checkpoint, load_pretrained, load_start, unlike_published

SPEC = ClassifierSpec("convnet-1-4", 2, 8)
DOGS = ("n02102040", "n02086240", "n01440764")  # a springer, a shih-tzu and a tench, not in ImageNet's order


def pictures(size: int = 8) -> torch.Tensor:
    return torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def imagenet_weights(tmp_path: Path) -> tuple[nn.Module, str]:
    """A network of 1,000 classes and a checkpoint of it."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=1000).eval()
    nn.init.normal_(network.get_classifier().bias)
    torch.save(network.state_dict(), tmp_path / "imagenet.pt")
    return network, str(tmp_path / "imagenet.pt")


def test_a_start_has_all_of_a_checkpoint_but_the_last_layer(imagenet_weights: tuple[nn.Module, str]) -> None:
    source, path = imagenet_weights
    spec = ClassifierSpec("test_resnet", 3, 32)
    model, again, other = (load_start(spec, path, seed=seed) for seed in (0, 0, 1))
    assert (model.mean.flatten().tolist(), model.std.flatten().tolist()) == (
        list(source.pretrained_cfg["mean"]), list(source.pretrained_cfg["std"]),
    )  # fmt: skip
    found = model.network.state_dict()
    assert found["fc.weight"].shape == (3, 96) and torch.equal(found["fc.weight"], again.network.fc.weight)
    assert not torch.equal(found["fc.weight"], other.network.fc.weight)
    kept = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("fc.")}
    assert len(kept) == len(found) - 2 and all(torch.equal(found[name], tensor) for name, tensor in kept.items())
    with pytest.raises(ValueError, match=r"checkpoint .* does not fit"):
        load_start(ClassifierSpec("convnet-1-5", 2, 8), path)


def test_a_start_may_be_a_classifier_of_other_classes(tmp_path: Path) -> None:
    source = build_classifier(SPEC, seed=1)
    save_classifier(source, SPEC, tmp_path)
    model = load_start(ClassifierSpec(SPEC.architecture, 5, SPEC.size_px), str(tmp_path / "model.safetensors"))
    assert model(pictures()).shape == (4, 5)
    assert torch.equal(model.network[0].weight, source.network[0].weight)


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "checkpoint", "classifier"])
def test_a_checkpoint_is_loaded(tmp_path: Path, kind: str) -> None:
    source = build_classifier(SPEC, seed=1)
    state = source.network.state_dict()
    path = tmp_path / ("model.safetensors" if kind in ("safetensors", "classifier") else "w.pt")
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "classifier":
        save_classifier(source, SPEC, tmp_path)
    else:
        torch.save(state if kind == "state dict" else {"state_dict": state, "epoch": 3}, path)
    assert torch.equal(source(pictures()), load_checkpoint(SPEC, str(path), ("a", "b"))(pictures()))
    with pytest.raises(ValueError, match=r"checkpoint .* does not fit"):
        load_checkpoint(ClassifierSpec("convnet-1-5", 2, 8), str(path), ("a", "b"))


def test_some_of_imagenets_classes_are_picked_by_wordnet_id(imagenet_weights: tuple[nn.Module, str]) -> None:
    network, path = imagenet_weights
    teacher = load_checkpoint(ClassifierSpec("test_resnet", 3, 32), path, DOGS).eval()
    rows = [imagenet_index(name) for name in DOGS]
    assert rows == [217, 155, 0]
    x = pictures(32)
    expected = network((x - teacher.mean) / teacher.std)[:, rows]
    torch.testing.assert_close(teacher(x), expected)
    assert teacher(x).shape == (4, 3) and teacher(x).std(0).min() > 0


def test_a_network_of_timm_is_given_timms_normalisation(tmp_path: Path) -> None:
    spec = ClassifierSpec("resnet10t", 2, 32)
    torch.save(build_classifier(spec).network.state_dict(), tmp_path / "w.pt")
    loaded = load_checkpoint(spec, str(tmp_path / "w.pt"), ("a", "b"))
    torch.testing.assert_close(loaded.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(loaded.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))


def test_a_head_of_imagenet_does_not_fit_other_classes(imagenet_weights: tuple[nn.Module, str]) -> None:
    _, path = imagenet_weights
    with pytest.raises(ValueError, match=r"does not fit"):
        load_checkpoint(ClassifierSpec("test_resnet", 2, 32), path, ("n01440764", "cat"))


def test_timms_weights_are_refused_for_classes_they_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddoq_core.train.pretrained.build_network", lambda spec, pretrained: _untrained(spec))
    spec = ClassifierSpec("resnet18", 2, 32)
    with pytest.raises(ValueError, match=r"timm's resnet18 knows 1000 classes, and 'cat' of the recipe's 2 is not"):
        load_pretrained(spec, ("n01440764", "cat"))
    model = load_pretrained(spec, ("n02102040", "n01440764"))
    assert model(pictures(32)).shape == (4, 2)
    torch.testing.assert_close(model.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


def _untrained(spec: ClassifierSpec) -> nn.Module:
    """What timm would build if it could reach its hub."""
    return timm.create_model(spec.architecture, num_classes=spec.num_classes)


def test_a_model_without_pretrained_weights_is_named() -> None:
    with pytest.raises(ValueError, match="timm has no pretrained weights of 'convnet-3-16'"):
        load_pretrained(ClassifierSpec("convnet-3-16", 2, 32), ("a", "b"))


def test_a_network_is_judged_on_its_own_view() -> None:
    assert center_crop_of("resnet18.tv_in1k") == 0.875
    assert center_crop_of("resnet18") == 0.95, "timm's own weights of the same network"
    assert center_crop_of("convnet-3-32") is None


@pytest.mark.parametrize(
    ("top1", "num_images", "odd"),
    [(0.6976, 50_000, False), (0.68, 50_000, False), (0.67, 50_000, True), (0.72, 50_000, False), (0.63, 300, False)],
)
def test_an_accuracy_that_is_not_the_published_one_is_told(top1: float, num_images: int, odd: bool) -> None:
    names = ImageNetInfo().label_names()
    told = unlike_published("resnet18.tv_in1k", top1, names, num_images)
    assert bool(told) == odd
    assert not odd or ("67.0%" in told and "69.8%" in told and "50000" in told)
    assert not unlike_published("resnet18.tv_in1k", 0.1, names[:10], num_images), "of ten classes none is published"
    assert not unlike_published("resnet18", 0.1, names, num_images)
