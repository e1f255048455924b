"""A distilled set taken from its artifacts."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.artifact import Artifact, NotDone
from tasks.export.handout import Handout, source_of
from tasks.inputs.models import load_classifier
from tasks.inputs.stores import distilled_set
from tasks.recipe.settings import Weighting


def collect(
    decode: Artifact, weights: Weighting, teacher: Artifact | None, told: dict[str, Any] | None = None
) -> Handout:
    """The pictures of a decode artifact, weighted by this rule, with a teacher's logits where one is given.

    told  what the card says besides: "method", "accuracy", "command"

    Raises NotDone for an artifact that is not finished or of another stage, ValueError for an unknown rule.
    """
    for artifact, stage in ((decode, "decode"), *([(teacher, "teacher")] if teacher else [])):
        if artifact.stage != stage or not artifact.is_done():
            raise NotDone(
                f"{artifact} is no finished artifact of the stage {stage}, or has a damaged file, which `ddoq verify` "
                "names: run `ddoq run`, or give another"
            )
    distilled, cluster = distilled_set(decode, weights), decode.parents.get("cluster")
    card = {
        **(told or {}),
        "source": source_of(decode.ancestor("shard")),
        "images per class": len(distilled.images) // len(distilled.classes),
        "weights": weights,
        "prototypes": cluster and cluster.config,
        "pictures": decode.config,
        "W2 of the mass-weighted prototypes, mean over classes": cluster
        and fmean(w2 for mark in cluster.marks().values() for w2 in np.ravel(mark.facts["w2"])),  # of old a number
        "teacher": None if teacher is None else {"top1": teacher.record().facts.get("top1")},
        "made from": {"decode": decode.digest, **({"cluster": cluster.digest} if cluster else {})},
    }
    logits = None if teacher is None else _logits(teacher, distilled.images)
    return Handout(**vars(distilled), logits=logits, card=card)


def _logits(teacher: Artifact, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    from ddoq_core.train.accuracy import predict

    return predict(load_classifier(teacher), images)
