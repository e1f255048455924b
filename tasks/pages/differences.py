"""What is sure about the rows of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from ddoq_core.measure.statistics import holm, paired_difference
from tasks.pages.effects import SURE


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean; None where one is not known, as W2 of pictures without prototypes."""
    found = list(values)
    known = [value for value in found if value is not None]
    return fmean(known) if len(known) == len(found) else None


def differences(rows: Iterable[Mapping[str, Any]], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """A row per pair of methods and student: the mean difference in top-1 over the seeds, which pair them, its
    interval, and p corrected by Holm's method for all questions. None where there is one seed.

    rows  of the report, with "method", "architecture" and the "top1" of each seed
    """
    top1 = {(row["method"], row["architecture"]): row["top1"] for row in rows}
    found = []
    for architecture in dict.fromkeys(architecture for _, architecture in top1):
        for a, b in pairs:
            values = [top1[method, architecture] for method in (a, b)]
            if len(values[0]) > 1:
                interval, p = paired_difference(*values)
                found.append({"question": f"{a} − {b}", "architecture": architecture, "p": p, **interval._asdict()})
    for row, corrected in zip(found, holm([row["p"] for row in found]), strict=True):
        row |= {"p_holm": corrected, "significant": corrected < SURE}
    return found
