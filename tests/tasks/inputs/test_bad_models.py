"""Model folders of other shapes, and names that are no models', are refused before the run in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ddoq_core.train.architectures import check_architecture, timm_names
from flows.catalogue import load_recipe
from storage.errors import UserError
from tasks.inputs.checks import check_models
from tests.tasks.inputs.test_checks import recipe

INDEX, TRANSFORMER, UNET, VAE = "model_index.json", "transformer/config.json", "unet/config.json", "vae/config.json"
GIVE = "give a diffusers folder"
NO_OBJECT = {"null": "null", "list": "[]", "list of pairs": '[["_class_name", "DiTPipeline"]]', "number": "7",
             "text": '"DiTPipeline"', "nothing": "", "no JSON": "not json", "NaN": "NaN", "deep": "[" * 100_000,
             "deep object": '{"a":' * 100_000, "bytes": "\x00\x01\x02"}  # fmt: skip
OTHER_VALUES: list[tuple[str, str, Any, str]] = [
    (INDEX, "_class_name", None, "_class_name"),
    (INDEX, "_class_name", 7, "_class_name"),
    (INDEX, "_class_name", ["DiTPipeline"], "_class_name"),
    (INDEX, "_class_name", "os.system", "needs a DiTPipeline"),
    (INDEX, "_class_name", "[red]\n\x1b[31m", "needs a DiTPipeline"),
    (INDEX, "id2label", [], "id2label"),
    (INDEX, "id2label", {"one": "cock"}, "id2label"),
    (INDEX, "id2label", {"1": 7}, "id2label"),
    (INDEX, "id2label", {"1": None}, "id2label"),
    (INDEX, "id2label", "cock", "id2label"),
    (TRANSFORMER, "in_channels", None, "in_channels"),
    (TRANSFORMER, "in_channels", "four", "in_channels"),
    (TRANSFORMER, "in_channels", 0, "in_channels"),
    (TRANSFORMER, "in_channels", [4], "in_channels"),
    (TRANSFORMER, "in_channels", 1e308, "in_channels"),
    (TRANSFORMER, "in_channels", 10**30, f"{10**30} channels"),
    (TRANSFORMER, "sample_size", None, "sample_size"),
    (TRANSFORMER, "sample_size", -1, "sample_size"),
    (TRANSFORMER, "sample_size", {"a": 1}, "sample_size"),
    (TRANSFORMER, "num_embeds_ada_norm", None, "num_embeds_ada_norm"),
    (TRANSFORMER, "num_embeds_ada_norm", "1000 classes", "num_embeds_ada_norm"),
    (UNET, "in_channels", None, "in_channels"),
    (UNET, "in_channels", {}, "in_channels"),
    (UNET, "in_channels", 9, "9 channels"),
    (VAE, "block_out_channels", 8, "block_out_channels"),
    (VAE, "block_out_channels", ["a"], "block_out_channels"),
    (VAE, "block_out_channels", None, "block_out_channels"),
    (VAE, "latent_channels", None, "latent_channels"),
    (VAE, "latent_channels", "[4]", "latent_channels"),
    (VAE, "latent_channels", 0, "latent_channels"),
]


def copy(part: str, folders: dict[str, Path], tmp_path: Path) -> tuple[str, Path]:
    kind = "stable-diffusion" if part == UNET else "dit"
    return kind, Path(shutil.copytree(folders[kind], tmp_path / "copy"))


def refused(kind: str, folder: Path) -> str:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        check_models(recipe(kind, folder))
    told = str(caught.value)
    assert told.isprintable() and len(told) < 1000, told
    assert time.monotonic() - start < 2
    return told


def test_whole_folders_are_let_through(folders: dict[str, Path]) -> None:
    for kind, folder in folders.items():
        check_models(recipe(kind, folder))


@pytest.mark.parametrize("text", NO_OBJECT)
@pytest.mark.parametrize("part", [INDEX, TRANSFORMER, UNET, VAE])
def test_a_file_that_is_no_object(part: str, text: str, folders: dict[str, Path], tmp_path: Path) -> None:
    kind, folder = copy(part, folders, tmp_path)
    (folder / part).write_text(NO_OBJECT[text])
    told = refused(kind, folder)
    assert str(folder / part) in told and GIVE in told


@pytest.mark.parametrize(("part", "key", "value", "says"), OTHER_VALUES)
def test_a_value_of_another_shape(
    part: str, key: str, value: Any, says: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    kind, folder = copy(part, folders, tmp_path)
    told = json.loads((folder / part).read_text())
    (folder / part).write_text(json.dumps({**told, key: value}))
    assert says in (line := refused(kind, folder)) and str(folder) in line


@pytest.mark.parametrize(("part", "key"), [(INDEX, "_class_name"), (TRANSFORMER, "sample_size"), (UNET, "in_channels")])
def test_a_missing_key(part: str, key: str, folders: dict[str, Path], tmp_path: Path) -> None:
    kind, folder = copy(part, folders, tmp_path)
    told = json.loads((folder / part).read_text())
    del told[key]
    (folder / part).write_text(json.dumps(told))
    line = refused(kind, folder)
    assert key in line and "Field required" in line and GIVE in line


@pytest.mark.parametrize("part", [INDEX, TRANSFORMER, UNET, VAE])
@pytest.mark.parametrize("what", ["folder", "fifo", "dangling link", "binary"])
def test_what_is_no_file_of_text(part: str, what: str, folders: dict[str, Path], tmp_path: Path) -> None:
    kind, folder = copy(part, folders, tmp_path)
    path = folder / part
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "binary":
        path.write_bytes(bytes(range(256)) * 100)
    else:
        path.symlink_to("nowhere")
    told = refused(kind, folder)
    assert str(path) in told and GIVE in told


NAMES = {  # --set → what the line says: the value, and what would do
    "teacher.architecture=resnet": ("'resnet'", "neither a timm model"),
    "teacher.architecture=resnet18+large-stem": ("'resnet18+large-stem'", "+small-stem"),
    'train.architectures=["resnet18", "resnet19"]': ("train.architectures: architecture 'resnet19'", "convnet-DEPTH"),
    'train.architectures=["convnet-0-8"]': ("'convnet-0-8'", "convnet-DEPTH-WIDTH"),
    'train.architectures=["convnet-3-1000000000"]': ("'convnet-3-1000000000'", "convnet-DEPTH-WIDTH"),
    'train.architectures=["convnet-9-8"]': ("convnet-9-8 halves 16 px away", "at most 4 blocks"),
    'train.architectures=["resnetap-11"]': ("'resnetap-11'", "resnetap-10"),
    "teacher.weights=/nowhere/teacher.pt": ("'/nowhere/teacher.pt'", "give a checkpoint's"),
    "teacher.weights=nobody/teacher": ("'nobody/teacher'", "or 'pretrained'"),
    "teacher.weights=/": ("'/'", "give a checkpoint's"),
    "images.size_px=17": ("images.size_px=17", "a multiple of 4"),
    'autoencoder={"weights": "/nowhere/vae"}': ("'/nowhere/vae'", "hub name"),
    'autoencoder={"weights": "/"}': ("/config.json", GIVE),
    'autoencoder={"weights": "/dev/null"}': ("/dev/null/config.json", GIVE),
    'prior={"kind": "dit", "weights": "./nowhere"}': ("'./nowhere'", "hub name"),
}


@pytest.mark.parametrize("setting", NAMES)
def test_names_of_nothing(setting: str) -> None:
    value, remedy = NAMES[setting]
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        check_models(load_recipe("digits", settings=[setting]))
    told = str(caught.value)
    assert value in told and remedy in told and told.isprintable(), told
    assert time.monotonic() - start < 2


def test_names_are_judged_as_timm_judges_them() -> None:
    import timm
    from timm.models._registry import _model_entrypoints

    assert timm_names() == set(_model_entrypoints)
    for name in ("resnet18.a1_in1k", "resnet50+small-stem+instance-norm", "resnetap-10", "convnet-4-32"):
        check_architecture(name, 32)
    assert timm.is_model("resnet18")


def test_neither_torch_nor_timm_is_loaded_to_refuse() -> None:
    code = (
        "import sys; from flows.catalogue import load_recipe; from tasks.inputs.checks import check_models\n"
        "try: check_models(load_recipe('digits', settings=['teacher.architecture=resnet']))\n"
        "except ValueError: print([m for m in ('torch', 'timm', 'prefect') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
