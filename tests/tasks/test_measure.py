"""The stage measure: what it says is what the stores hold, and it looks at blocks and batches."""

from __future__ import annotations

import pytest

from ddoq_core import class_weights
from ddoq_core.measure.wasserstein import w2
from tasks import decode, measure
from tasks.inputs.stores import latents_of, prototypes_of
from tests.tasks.conftest import Pipeline, complete


@pytest.mark.parametrize("method", ["ddoq", "medoids"])
def test_w2_is_that_of_the_weighted_points_to_their_class(
    pipeline: Pipeline, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, weights = pipeline.recipe, pipeline.recipe.settings_of(method).weights
    pictures = complete(decode.plan(recipe, method, 0, pipeline.cluster, pipeline.models))
    facts = complete(measure.plan(recipe, method, 0, pipeline.shard, pictures)).record().facts
    expected = []
    for name in pipeline.index.classes:
        z, found = latents_of(pipeline.encode).read_class(name), prototypes_of(pipeline.cluster).read_class(name)
        points = z[found["medoids"]] if method == "medoids" else found["centroids"]
        flat = (a.reshape(len(a), -1) for a in (z, points))
        expected.append(w2(*flat, class_weights(found["counts"], weights)))
    assert facts["w2"] == pytest.approx(sum(expected) / len(expected), rel=1e-6)
    assert 1 <= facts["n_eff"] <= recipe.ipc and 0 < facts["gradient"] < 10
