"""A model is damaged, or weights are changed, between two runs: nothing wrong is made, and the next run heals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.flows.conftest import IPC, Result, Services, ddoq, run_tiny
from tests.pipelines import tiny_vae
from tests.tasks.inputs.test_models import flip

WEIGHTS = "model/diffusion_pytorch_model.safetensors"


def stores(root: Path) -> dict[str, bytes]:
    """Every file of data below the root, by name; marks and records tell times."""
    found = (path for path in root.glob("*/*/*.zarr/**/*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("model", [f"autoencoder/{WEIGHTS}", "prior/model/config.json"])
def test_a_flipped_bit_stops_decode_before_it_writes_and_is_mended_by_the_next_run(
    model: str, root: Path, services: Services
) -> None:
    whole = stores(root)
    images = (root / "digits" / "images-ddoq-0").resolve()
    assert ddoq("forget", images, "3").code == 0
    without = stores(root)
    assert whole.keys() - without.keys(), "pictures are forgotten"
    flip((root / "digits" / model).resolve())
    file = (root / "digits" / model).resolve()
    failed = run_tiny(root, **services.both)
    assert failed.code == 1, failed.errors
    assert failed.errors.splitlines()[-1].startswith(
        f"ddoq: {file} (unit model) is gone or damaged: run the recipe again"
    )
    assert "Traceback" not in failed.errors
    assert stores(root) == without, "nothing was made with the damaged model"
    mended = run_tiny(root, **services.both)
    assert mended.code == 0, mended.errors
    assert stores(root) == whole
    assert mended.states["encode"] == "cached", "the model is the same, bit for bit"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, name, k in ((s, n, k) for s in ("train", "val") for n in ("a", "b") for k in range(IPC)):
        place = tmp_path / "images" / split / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(place / f"{k}.png")
    return tmp_path / "images"


def test_latents_are_those_of_the_weights_under_the_path(pictures: Path, tmp_path: Path, services: Services) -> None:
    vae, root = tmp_path / "vae", tmp_path / "runs"

    def encoded() -> tuple[dict[str, bytes], float]:
        settings = (f"data.path={pictures}", "images.size_px=8", f"autoencoder={json.dumps({'weights': str(vae)})}")
        given = [part for value in (*settings, "prior.train.flip=false", "ipc=1") for part in ("--set", value)]
        for name in ("shard", "autoencoder", "encode"):
            result = ddoq("stage", name, "folder", *given, "--root", root, **services.both)
            assert result.code == 0, result.errors
        [record] = root.glob("encode/*/record.json")
        return stores(root), json.loads(record.read_text())["finished"]

    save(vae, seed=0)
    first, at = encoded()
    assert encoded() == (first, at)
    shutil.rmtree(vae)
    save(vae, seed=1)
    second, later = encoded()
    assert second.keys() == first.keys() and second != first and later > at
    shutil.rmtree(vae)
    gone: Result = ddoq(
        "run", "folder", "--set", f"data.path={pictures}", "--set", f'autoencoder={{"weights": "{vae}"}}',
        "--root", root, **services.both,
    )  # fmt: skip
    assert gone.code == 2 and gone.errors.startswith(f"ddoq: weights '{vae}': no such folder"), gone.errors


def save(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    tiny_vae().save_pretrained(folder)
