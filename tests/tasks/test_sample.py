"""The stage sample: what the prior draws from noise, judged by the teacher."""

from __future__ import annotations

import numpy as np

from ddoq_core.train.accuracy import predict
from ddoq_core.train.networks import load_classifier
from tasks import sample
from tasks.inputs.stores import samples_of
from tests.tasks.conftest import Pipeline, complete


def test_samples_are_kept_by_class_with_the_share_that_is_recognised(pipeline: Pipeline) -> None:
    artifact = complete(sample.plan(pipeline.recipe, pipeline.encode, pipeline.models))
    facts, teacher = artifact.record().facts, load_classifier(pipeline.teacher.path / "model")
    assert len(facts["recognised"]) == 10 and facts["per_class"] == sample.PER_CLASS
    for label, name in enumerate(pipeline.index.classes):
        pictures = samples_of(artifact).read_class(name)["images"]
        assert pictures.shape == (sample.SHOWN, 8, 8, 3) and pictures.dtype == np.uint8
        assert pictures.std() > 0
        shown = (predict(teacher, pictures).argmax(1) == label).sum() / sample.PER_CLASS
        assert shown <= facts["recognised"][label] <= shown + 1 - sample.SHOWN / sample.PER_CLASS


def test_samples_do_not_depend_on_what_is_distilled(pipeline: Pipeline) -> None:
    other = pipeline.recipe.with_changes({"ipc": 7, "decode.strength": 0.1, "weights": "mass"})
    plans = [sample.plan(recipe, pipeline.encode, pipeline.models) for recipe in (pipeline.recipe, other)]
    assert plans[0].artifact.digest == plans[1].artifact.digest
