"""The questions that a comparison answers: differences between cells that have all but one thing in common.

Values of one seed are paired: both have the same noise and the same initial student.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddoq_core.measure.statistics import holm, paired_difference
from tasks.recipe.cells import D4M, RANDOM_IMAGES, Cell

SURE = 0.05
DDOQ = Cell("stream", "sqrt", "loss", "diffusion")  # as the paper has it: one pass of mini-batch k-means
EXACT = DDOQ._replace(quantizer="exact")
MEAN = Cell("exact", "uniform", "loss", "diffusion")  # at one image per class, DDOQ and D4M
Values = Mapping[Cell, NDArray[np.float64]]  # of each cell, top-1 (seeds,)


def effects(
    values: Values, levels: Mapping[str, Sequence[str]], students: Mapping[Cell, Sequence[str]] | None = None
) -> list[dict[str, Any]]:
    """A row per question that these cells can answer: the mean difference in top-1, its interval over the seeds, and p
    corrected by Holm's method for all questions of this call.

    levels    the values of each axis of a cell, every two of which make a question
    students  of each cell, by seed: cells whose students are the same are one, and no question is put to such a pair
    """
    rows = []
    for question, asked in _questions(list(values), levels):
        pairs = [(a, b) for a, b in asked if students is None or students[a] != students[b]]
        if not pairs:
            continue
        a = np.mean([values[left] for left, _ in pairs], axis=0)
        b = np.mean([values[right] for _, right in pairs], axis=0)
        interval, p = paired_difference(a, b)
        rows.append({"question": question, "pairs": len(pairs), "p": p, **interval._asdict()})
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": corrected, "significant": corrected < SURE}
    return rows


def _questions(cells: list[Cell], levels: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, list[tuple[Cell, Cell]]]]:
    """Each question with the pairs of cells that it is put to: the paper's first, then those about given sets, then one
    for every two values of an axis, over all cells that differ in it alone."""
    named = {
        "DDOQ − D4M": (DDOQ, D4M),
        "DDOQ with exact k-means − D4M": (EXACT, D4M),
        "D4M − random images": (D4M, RANDOM_IMAGES),
        "DDOQ − random images": (DDOQ, RANDOM_IMAGES),
        "DDOQ with exact k-means − random images": (EXACT, RANDOM_IMAGES),
    }
    if D4M not in cells:
        named = {"DDOQ (here the same as D4M) − random images": (MEAN, RANDOM_IMAGES)}
    given = [cell for cell in cells if cell.is_given]
    named |= {f"{cell.name} − random images": (cell, RANDOM_IMAGES) for cell in given}
    named |= {f"{cell.name} − DDOQ with exact k-means": (cell, EXACT) for cell in given}
    named |= {f"{a.name} − {b.name}": (a, b) for a, b in combinations(given, 2)}
    for question, pair in named.items():
        if pair[0] in cells and pair[1] in cells:
            yield question, [pair]
    for axis, values in levels.items():
        for b, a in combinations(values, 2):
            pairs = [(cell._replace(**{axis: a}), cell) for cell in cells if getattr(cell, axis) == b]
            pairs = [(left, right) for left, right in pairs if left in cells]
            if pairs:
                yield f"{axis}: {a} − {b}", pairs
