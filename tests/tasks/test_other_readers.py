"""Other programs open every store of a run without a warning, and find the numbers that ddoq reads."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import tensorstore
import xarray as xr
import zarr
from numpy.typing import NDArray

from tasks import cluster, decode, label, sample
from tasks.inputs.labels import labels_of
from tasks.inputs.stores import images_of, latents_of, prototypes_of, samples_of
from tests.tasks.conftest import Pipeline, complete

Arrays = dict[str, NDArray[Any]]
STORED = {"train.protocol": "fkd", "train.labels": "stored", "train.num_epochs": 2}


@pytest.fixture(scope="module")
def stores(pipeline: Pipeline) -> dict[Path, dict[str, Arrays]]:
    """Every kind of store of a run: of each unit the arrays that ddoq reads."""
    recipe, made_of = pipeline.recipe, {"teacher": pipeline.teacher}
    mosaic = recipe.with_changes({"ipc": 1, "decode.mosaic": 2})
    points = [pipeline.cluster, complete(cluster.plan(mosaic, "ddoq", 0, pipeline.encode))]
    made_from = zip((recipe, mosaic), points, strict=True)
    images = [complete(decode.plan(r, "ddoq", 0, prototypes, pipeline.models)) for r, prototypes in made_from]
    kept = [recipe.with_changes({**STORED, **more}) for more in ({}, {"train.label_top_k": 3})]
    labels = [complete(label.plan(r, "ddoq", 0, pipeline.shard, {"decode": images[0], **made_of})) for r in kept]
    samples = complete(sample.plan(recipe, pipeline.encode, pipeline.models))
    latents = latents_of(pipeline.encode)
    found: dict[Path, dict[str, Arrays]] = {
        latents.path: {
            name: {"latents": latents.read_class(name), "rows": latents.read_rows(name)}
            for name in pipeline.index.classes
        },
        samples_of(samples).path: {name: samples_of(samples).read_class(name) for name in pipeline.index.classes},
    }
    for of, artifacts in ((prototypes_of, points), (images_of, images), (labels_of, labels)):
        for artifact in artifacts:
            found[of(artifact).path] = {unit: of(artifact).read_class(unit) for unit in artifact.record().units}
    return found


def by_xarray(store: Path, name: str, key: str) -> Any:
    array = xr.open_zarr(store, group=name)[key]
    assert array.attrs["long_name"] and not any(str(axis).startswith("dim_") for axis in array.dims)
    return array.values


def by_dask(store: Path, name: str, key: str) -> Any:
    return dask.array.from_zarr(str(store / name / key)).compute(scheduler="sync")


def by_tensorstore(store: Path, name: str, key: str) -> Any:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store}/{name}/{key}/"}}
    return tensorstore.open(spec, read=True).result().read().result()


def by_zarr(store: Path, name: str, key: str) -> Any:
    return zarr.open_group(store, mode="r")[f"{name}/{key}"][:]


def test_every_store_is_opened_without_a_warning(stores: dict[Path, dict[str, Arrays]]) -> None:
    kinds = ("latents", "prototypes", "images", "labels", "samples")
    assert {path.stem for path in stores} == set(kinds)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path, classes in stores.items():
            tree = xr.open_datatree(path, engine="zarr")
            assert (tree.attrs["stage"], tree.attrs["digest"]) == path.parts[-3:-1]
            assert tree.children.keys() == classes.keys()
            assert all(tree[name].attrs["name"] == name for name in classes)
            for name, arrays in classes.items():
                assert tree[name].data_vars.keys() == arrays.keys()
                for key, array in arrays.items():
                    np.testing.assert_array_equal(tree[name][key].values, array)
                    for read in (by_xarray, by_dask, by_tensorstore, by_zarr):
                        np.testing.assert_array_equal(read(path, name, key), array, err_msg=read.__name__)
