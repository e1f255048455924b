"""The stage measure: what it says is what the stores hold, and it looks at blocks and batches."""

from __future__ import annotations

from typing import Any

import pytest

from ddoq_core import class_weights
from ddoq_core.measure.wasserstein import w2
from storage.artifact import Artifact
from tasks import cluster, decode, measure
from tasks.inputs.stores import images_of, latents_of, prototypes_of
from tests.tasks.conftest import Pipeline, complete

METHODS: dict[str, dict[str, Any]] = {
    "centroids": {},
    "medoids": {"decode": {"method": "medoid"}},
    "mosaics": {"decode": {"mosaic": 2}},
    "mosaics-of-medoids": {"decode": {"method": "medoid", "mosaic": 2}},
    "members": {"decode": {"method": "member"}},
    "mosaics-of-members": {"decode": {"method": "member", "mosaic": 2}},
}


@pytest.fixture(scope="module")
def measured(pipeline: Pipeline) -> dict[str, Artifact]:
    """The stage's artifact for each method."""
    recipe = pipeline.recipe.with_changes({"methods": METHODS})

    def measure_of(method: str) -> Artifact:
        points = complete(cluster.plan(recipe, method, 0, pipeline.encode))
        pictures = complete(decode.plan(recipe, method, 0, points, pipeline.models))
        return complete(measure.plan(recipe, method, 0, pipeline.shard, pictures))

    return {method: measure_of(method) for method in METHODS}


@pytest.mark.parametrize(("method", "num_points"), zip(METHODS, (3, 3, 12, 12, 3, 12), strict=True))
def test_w2_is_that_of_the_weighted_points_to_their_class(
    method: str, num_points: int, pipeline: Pipeline, measured: dict[str, Artifact]
) -> None:
    facts, prototypes = measured[method].record().facts, measured[method].parents["decode"].parents["cluster"]
    expected = []
    for name in pipeline.index.classes:
        z, found = latents_of(pipeline.encode).read_class(name), prototypes_of(prototypes).read_class(name)
        points = z[found["medoids"]] if "medoids" in method else found["centroids"]
        if "members" in method:
            points = z[images_of(measured[method].parents["decode"]).read_array(name, "member").ravel()]
        assert len(points) == num_points
        flat = (a.reshape(len(a), -1) for a in (z, points))
        expected.append(w2(*flat, class_weights(found["counts"], pipeline.recipe.weights)))
    assert facts["w2"] == pytest.approx(sum(expected) / len(expected), rel=1e-6)
    assert 1 <= facts["n_eff"] <= num_points and 0 < facts["gradient"] < 10


def test_the_points_of_mosaics_are_nearer_to_their_class(measured: dict[str, Artifact]) -> None:
    found = {method: artifact.record().facts["w2"] for method, artifact in measured.items()}
    assert found["mosaics"] < found["centroids"] and found["mosaics-of-medoids"] < found["medoids"]
