"""Many small classes, of several images each, through the stages whose stores pack them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from flows.catalogue import load_recipe
from storage.artifact import Artifact
from storage.inspection import describe, forgetting, verify_folder
from tasks import autoencoder, cluster, decode, encode, shard
from tasks.inputs.plan import Work
from tasks.inputs.stores import distilled_set, images_of, indexed, latents_of, packed, prototypes_of
from tests.tasks.conftest import TINY, complete
from tests.tasks.test_other_readers import by_dask, by_tensorstore, by_xarray, by_zarr

NAMES = tuple(f"kind {k:02d}" for k in range(40))
COUNTS = {name: 1 + k % 3 for k, name in enumerate(NAMES)}


@dataclass(frozen=True)
class Stages:
    """The work of three stages of which each is done. Whoever damages one does it again."""

    encode: Work
    cluster: Work
    decode: Work

    def __iter__(self) -> Iterator[Work]:
        return iter((self.encode, self.cluster, self.decode))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    root, rng = tmp_path_factory.mktemp("packs"), np.random.default_rng(0)
    for name, count in COUNTS.items():
        for split, num in (("train", count), ("val", 1)):
            (root / "images" / split / name).mkdir(parents=True)
            for k in range(num):
                pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / "images" / split / name / f"{k}.png")
    recipe = load_recipe("folder", 1, [f"data.path={root / 'images'}"])
    recipe = recipe.with_changes({**TINY, "ipc": 1, "data.tune_fraction": 0.0})
    listed, _ = indexed(complete(shard.plan(recipe, root / "runs")))
    model = complete(autoencoder.plan(recipe, listed))
    latents = encode.plan(recipe, listed, model)
    points = cluster.plan(recipe, "ddoq", 0, complete(latents))
    drawn = recipe.with_changes({"decode.method": "autoencoder"})
    pictures = decode.plan(drawn, "ddoq", 0, complete(points), {"autoencoder": model})
    complete(pictures)
    return Stages(latents, points, pictures)


def packs(artifact: Artifact) -> list[Sequence[str]]:
    return list(packed(artifact).classes.values())


def test_a_store_has_a_group_for_a_pack(stages: Stages) -> None:
    for work, store in zip(stages, ("latents.zarr", "prototypes.zarr", "images.zarr"), strict=True):
        own = packs(work.artifact)
        assert 16 <= len(own) < len(NAMES) and work.units == work.artifact.num_marks() == len(own)
        groups = [path for path in (work.artifact.path / store).iterdir() if path.is_dir()]
        assert len(groups) == len(own)
        assert sum(len(batch.packs) for batch in work.batches) == len(own)
        assert f"{store}: 40 classes in {len(own)} groups" in describe(work.artifact.path)


def test_every_class_is_read_as_its_own(stages: Stages) -> None:
    latents, points, pictures = (work.artifact for work in stages)
    _, index = indexed(latents.ancestor("shard"))
    for name in NAMES:
        z, found = latents_of(latents).read_class(name), prototypes_of(points).read_class(name)
        np.testing.assert_array_equal(latents_of(latents).read_rows(name), index.rows("train", name))
        np.testing.assert_array_equal(np.concatenate(list(latents_of(latents).read_blocks(name))), z)
        np.testing.assert_array_equal(latents_of(latents).read_some(name, np.array([len(z) - 1])), z[-1:])
        assert len(z) == COUNTS[name] == len(found["assignment"]) == found["counts"].sum()
        np.testing.assert_allclose(found["centroids"][0], z.astype(np.float32).mean(0), atol=1e-3)
        assert images_of(pictures).shape_of(name, "images") == (1, 8, 8, 3)
    distilled = distilled_set(pictures, "mass")
    np.testing.assert_array_equal(distilled.labels, np.arange(len(NAMES)))
    for label, name in enumerate(NAMES):
        np.testing.assert_array_equal(distilled.images[label], images_of(pictures).read_array(name, "images")[0])


def test_other_programs_find_each_class_by_names_and_sizes(stages: Stages) -> None:
    latents = latents_of(stages.encode.artifact)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xr.open_datatree(latents.path, engine="zarr")
        assert [name for group in tree.children.values() for name in group.attrs["classes"]] == list(NAMES)
        for pack, group in tree.children.items():
            sizes = group["latents"].attrs["sizes"]
            for read in (by_xarray, by_dask, by_tensorstore, by_zarr):
                parts = np.split(read(latents.path, pack, "latents"), np.cumsum(sizes)[:-1])
                for name, part in zip(group.attrs["classes"], parts, strict=True):
                    np.testing.assert_array_equal(part, latents.read_class(name))
        for store in (prototypes_of(stages.cluster.artifact), images_of(stages.decode.artifact)):
            for pack, group in xr.open_datatree(store.path, engine="zarr").children.items():
                for key, array in group.data_vars.items():
                    parts = np.split(array.values, np.cumsum(array.attrs["sizes"])[:-1])
                    for name, part in zip(group.attrs["classes"], parts, strict=True):
                        np.testing.assert_array_equal(part, store.read_array(name, str(key)), err_msg=pack)


@pytest.mark.parametrize("stage", ["encode", "cluster", "decode"])
def test_a_damaged_file_costs_its_pack_alone(stages: Stages, stage: str) -> None:
    work: Work = getattr(stages, stage)
    artifact = work.artifact
    marks, files = (
        artifact.marks(),
        {path: path.read_bytes() for path in artifact.path.rglob("*zarr/**/c/*/**/*") if path.is_file()},
    )
    unit, mark = list(marks.items())[3]
    damaged = next(artifact.path / name for name in mark.files if "/c/" in name)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 4
    damaged.write_bytes(data)
    [line] = [line for line in verify_folder(artifact.path) if line.startswith("damaged")]
    assert f"unit {unit}, file {damaged.relative_to(artifact.path)}" in line
    again = complete(work).marks()
    assert {name for name in marks if again[name] != marks[name]} == {unit}
    assert again[unit].content == marks[unit].content and all(path.read_bytes() == file for path, file in files.items())


def test_a_class_is_forgotten_by_its_name_and_its_pack_made_anew(stages: Stages) -> None:
    artifact = stages.decode.artifact
    before, content = artifact.marks(), artifact.content()
    [unit] = [unit for unit, mark in before.items() if "kind 07" in mark.facts["classes"]]
    forgotten = forgetting(artifact.path, ["kind 07"])
    assert forgotten.units == (unit,) and len(before[unit].facts["classes"]) > 1
    forgotten.carry_out()
    assert artifact.missing({name: mark.inputs for name, mark in before.items()}) == [unit]
    assert complete(stages.decode).content() == content
