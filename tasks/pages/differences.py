"""What is sure about the rows of a report: every method against real images at random, what is decoded against the
medoids, the first method against D4M."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ddoq_core.measure.statistics import holm, paired_difference
from tasks.pages.effects import SURE
from tasks.recipe.recipe import Method, Recipe


def differences(rows: Sequence[dict[str, Any]], recipe: Recipe) -> list[dict[str, Any]]:
    """A row per question and student: the mean difference in top-1 of two methods over the seeds, which pair them, its
    interval, and p corrected by Holm's method for all questions. None where there is one seed.

    rows  of the report, with "method", "architecture" and the "top1" of each seed
    """
    if len(recipe.seeds) < 2:
        return []
    top1 = {(row["method"], row["architecture"]): row["top1"] for row in rows}
    found = []
    for architecture in recipe.train.architectures:
        for a, b in questions(recipe):
            interval, p = paired_difference(top1[a, architecture], top1[b, architecture])
            found.append({"question": f"{a} − {b}", "architecture": architecture, "p": p, **interval._asdict()})
    for row, corrected in zip(found, holm([row["p"] for row in found]), strict=True):
        row |= {"p_holm": corrected, "significant": corrected < SURE}
    return found


def questions(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Pairs of the recipe's methods, by what their settings say that they are."""
    methods = {name: recipe.settings_of(name) for name in recipe.methods}
    random = next((name for name, own in methods.items() if _is_random(own)), None)
    plain = {name: own for name, own in methods.items() if own.decode.mosaic == 1 and name != random}
    real = (name for name, own in plain.items() if own.decode.method == "medoid")
    medoids = next(real, None)
    first, *others = methods
    d4m = next((name for name in others if methods[name].cluster.method == "stream-d4m"), None)
    yield from ((name, random) for name in methods if random and name != random)
    yield from ((name, medoids) for name, own in methods.items() if medoids and own.decode.method != "medoid")
    if d4m:
        yield first, d4m


def _is_random(own: Method) -> bool:
    decode = own.decode
    return (own.cluster.method, decode.method, decode.mosaic, own.weights) == ("random", "medoid", 1, "uniform")
