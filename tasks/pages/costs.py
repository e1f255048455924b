"""What a result cost: seconds, memory and bytes of every stage that it was made by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from storage.artifact import Artifact
from tasks.recipe.settings import STAGES

WORK = ("read", "compute", "write")


def ledger(result: Artifact) -> Iterator[dict[str, Any]]:
    """A row per stage of what an artifact was made from, each artifact counted once: seconds that tasks worked when
    they were made, summed over workers, the largest memory of a worker process, bytes on disk."""
    by_stage: dict[str, dict[str, Artifact]] = {}
    for artifact in result.ancestors():
        by_stage.setdefault(artifact.stage, {})[artifact.digest] = artifact
    for stage in STAGES:
        made = list(by_stage.get(stage, {}).values())
        if made:
            records = [artifact.record() for artifact in made]
            yield {
                "stage": stage,
                "artifacts": len(made),
                "units": sum(len(record.units) for record in records),
                **{k: round(sum(record.seconds.get(k, 0.0) for record in records), 2) for k in WORK},
                "peak_mib": max(record.peak_bytes for record in records) >> 20,
                "mib": round(sum(map(num_bytes, made)) / 2**20, 1),
                "digests": ", ".join(sorted(a.digest for a in made)[:4]) + (" …" if len(made) > 4 else ""),
            }


def seconds(artifact: Artifact) -> float:
    """That tasks worked on an artifact when it was made."""
    return sum(artifact.record().seconds.get(k, 0.0) for k in WORK)


def num_bytes(artifact: Artifact) -> int:
    """Of an artifact's files."""
    return sum(stamp.num_bytes for mark in artifact.marks().values() for stamp in mark.files.values())
