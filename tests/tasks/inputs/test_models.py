"""What is loaded is what was written: a flipped bit in a model, whatever its size and time, is found before its use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddoq_core.decode.transformer import FlowTransformer
from storage.artifact import Artifact, Damaged
from storage.clock import Clock
from storage.files import write_json
from tasks.inputs.given import MODEL
from tasks.inputs.models import load_classifier, load_encoder, load_prior, read_model
from tasks.recipe.settings import DecodeConfig
from tests.pipelines import tiny_vae


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file, and give the file back its time."""
    at, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))


def damage_is_found(artifact: Artifact, name: str) -> None:
    file = artifact.path / MODEL / name
    assert artifact.is_done()
    flip(file)
    assert artifact.is_done(), "size and time are as they were"
    with pytest.raises(Damaged) as caught:
        read_model(artifact)
    told = str(caught.value)
    assert str(file) in told and "run the recipe" in told and "ddoq verify" in told and "\n" not in told
    assert not artifact.is_done(), "the next run makes it again"
    with pytest.raises(Damaged):
        read_model(artifact)


def test_a_flipped_bit_in_a_classifier(parents: dict[str, Artifact]) -> None:
    teacher = parents["teacher"]
    damage_is_found(teacher, "model.safetensors")
    with pytest.raises(Damaged):
        load_classifier(teacher)


def test_a_model_is_read_once_a_process(parents: dict[str, Artifact]) -> None:
    model = load_classifier(parents["teacher"])
    flip(parents["teacher"].path / MODEL / "model.safetensors")
    assert load_classifier(parents["teacher"]) is model, "what is in memory was whole"


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "config.json", "precision.json"])
def test_a_flipped_bit_in_an_autoencoder(name: str, tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, "autoencoder", 1, {})
    with artifact.writing(MODEL, Clock()) as folder:
        tiny_vae().save_pretrained(folder)
        write_json(folder / "precision.json", {"precision": "float32"})
    damage_is_found(artifact, name)
    with pytest.raises(Damaged):
        load_encoder(artifact)


def test_a_flipped_bit_in_a_prior(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, "prior", 1, {})
    with artifact.writing(MODEL, Clock()) as folder:
        FlowTransformer(1, 8, 2, 1, 2, 8, 2, latents_mean=(0.0,), latents_std=(1.0,)).save_pretrained(folder)
    damage_is_found(artifact, "diffusion_pytorch_model.safetensors")
    with pytest.raises(Damaged):
        load_prior(artifact, DecodeConfig(), ("a", "b"))


def test_a_model_that_is_gone(parents: dict[str, Artifact]) -> None:
    (parents["teacher"].path / MODEL / "model.safetensors").unlink()
    with pytest.raises(Damaged, match=r"model\.safetensors \(unit model\) is gone or damaged"):
        load_classifier(parents["teacher"])
