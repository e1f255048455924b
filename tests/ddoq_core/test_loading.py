"""Weights with a tensor removed, added or of another shape are refused by every loader, which names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiTTransformer2DModel
from safetensors.torch import load_file, save_file

from ddoq_core.decode.dit import load_dit
from ddoq_core.decode.flow import load_trained_prior
from ddoq_core.decode.stable_diffusion import load_stable_diffusion
from ddoq_core.encode.autoencoder import load_autoencoder
from ddoq_core.encode.taef2 import TAEF2
from ddoq_core.errors import InvalidInput
from ddoq_core.train.networks import ClassifierSpec, build_classifier, load_classifier, save_classifier
from ddoq_core.train.pretrained import load_checkpoint
from tests.ddoq_core.decode.test_transformer import build
from tests.pipelines import save_dit, save_stable_diffusion

SPEC = ClassifierSpec("convnet-1-4", 2, 8)
Loader = Callable[[Path], Any]
LOADERS: dict[str, tuple[str, Loader]] = {  # what is damaged of the folder, and what reads it
    "AutoencoderKL": ("sd/vae", lambda folder: load_autoencoder(folder / "sd", "vae")),
    "AutoencoderTiny": ("tiny", lambda folder: load_autoencoder(folder / "tiny")),
    "TAEF2": ("taef2/encoder.safetensors", lambda folder: load_autoencoder(folder / "taef2")),
    "DiT": ("dit/transformer", lambda folder: load_dit(str(folder / "dit"), ("cock",))),
    "U-Net": ("sd/unet", lambda folder: load_stable_diffusion(str(folder / "sd"), ["a fish"], "")),
    "text encoder": ("sd/text_encoder", lambda folder: load_stable_diffusion(str(folder / "sd"), ["a fish"], "")),
    "trained prior": ("prior", lambda folder: load_trained_prior(folder / "prior")),
    "classifier": ("classifier", lambda folder: load_classifier(folder / "classifier")),
    "checkpoint": ("classifier", lambda f: load_checkpoint(SPEC, str(f / "classifier/model.safetensors"), ("a", "b"))),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each kind of weights. Do not change."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(save_stable_diffusion(tmp_path_factory.mktemp("sd")), folder / "sd")
    save_dit(folder / "dit")
    channels = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    AutoencoderTiny(**channels, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).save_pretrained(folder / "tiny")
    (folder / "taef2").mkdir()
    for name, half in (("encoder", TAEF2().encoder), ("decoder", TAEF2().decoder)):
        save_file(half.state_dict(), folder / "taef2" / f"{name}.safetensors")
    build().save_pretrained(folder / "prior")
    (folder / "classifier").mkdir()
    save_classifier(build_classifier(SPEC), SPEC, folder / "classifier")
    return folder


def remove(state: dict[str, torch.Tensor], name: str) -> str:
    del state[name]
    return f"1 tensors missing ({name})"


def add(state: dict[str, torch.Tensor], name: str) -> str:
    state["some.other"] = torch.zeros(2)
    return "1 tensors unexpected (some.other)"


def reshape(state: dict[str, torch.Tensor], name: str) -> str:
    wanted, state[name] = tuple(state[name].shape), torch.zeros(7, 9)
    return f"1 tensors of another shape ({name} (7, 9) for {wanted})"


def rename_all(state: dict[str, torch.Tensor], name: str) -> str:
    number = len(state)
    for key in list(state):
        state[f"their.{key}"] = state.pop(key)
    return f"{number} tensors unexpected (their."


@pytest.mark.parametrize("damage", [remove, add, reshape])
@pytest.mark.parametrize("kind", LOADERS)
def test_what_does_not_fit_is_named(
    kind: str, damage: Callable[[dict[str, torch.Tensor], str], str], whole: Path, tmp_path: Path
) -> None:
    part, load = LOADERS[kind]
    told = refused(load, part, damage, whole, tmp_path / "copy")
    assert str(tmp_path / "copy" / part) in told, told


def test_weights_of_another_network_are_counted_not_listed(whole: Path, tmp_path: Path) -> None:
    told = refused(LOADERS["AutoencoderKL"][1], "sd/vae", rename_all, whole, tmp_path / "copy")
    assert told.endswith(", …): give whole weights of it") and len(told) < 1000


def refused(load: Loader, part: str, damage: Callable[..., str], whole: Path, copy: Path) -> str:
    """What is said of a copy with a damaged part, in one line that names the damage."""
    shutil.copytree(whole, copy)
    load(copy)
    file = copy / part if (copy / part).is_file() else next((copy / part).glob("*.safetensors"))
    state = load_file(file)
    expected = damage(state, sorted(state)[3])
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(InvalidInput) as caught:
        load(copy)
    told = str(caught.value)
    assert expected in told and "\n" not in told, told
    return told


@pytest.mark.parametrize("damage", [b"", b"no tensors", None], ids=["empty", "text", "half"])
@pytest.mark.parametrize("kind", LOADERS)
def test_files_that_are_no_weights_are_refused(kind: str, damage: bytes | None, whole: Path, tmp_path: Path) -> None:
    part, load = LOADERS[kind]
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    file = copy / part if (copy / part).is_file() else next((copy / part).glob("*.safetensors"))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] if damage is None else damage)
    with pytest.raises((InvalidInput, OSError)) as caught:
        load(copy)
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize("whole_again", [True, False])
def test_weights_in_several_files_are_checked_over_all_of_them(whole_again: bool, whole: Path, tmp_path: Path) -> None:
    AutoencoderKL.from_pretrained(whole / "sd/vae").save_pretrained(tmp_path, max_shard_size="20KB")
    [index] = tmp_path.glob("*.index.json")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    if whole_again:
        load_autoencoder(tmp_path)
        return
    place = json.loads(index.read_text())["weight_map"]
    state = load_file(tmp_path / place["encoder.conv_in.weight"])
    del state["encoder.conv_in.weight"]
    save_file(state, tmp_path / place["encoder.conv_in.weight"], metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match=r"1 tensors missing \(encoder\.conv_in\.weight\)"):
        load_autoencoder(tmp_path)


def test_weights_as_bin_and_with_position_ids_are_whole(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "sd", tmp_path / "sd")
    file = tmp_path / "sd/text_encoder/model.safetensors"
    state = load_file(file)
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(state, file.with_name("pytorch_model.bin"))
    file.unlink()
    shutil.copytree(whole / "dit", tmp_path / "dit")
    transformer = DiTTransformer2DModel.from_pretrained(tmp_path / "dit/transformer")
    shutil.rmtree(tmp_path / "dit/transformer")
    transformer.save_pretrained(tmp_path / "dit/transformer", safe_serialization=False)
    load_dit(str(tmp_path / "dit"), ("cock",))
    old, new = (load_stable_diffusion(str(folder / "sd"), ["a fish"], "") for folder in (whole, tmp_path))
    assert torch.equal(old.conditions, new.conditions)
