"""The tables of docs/results.json in the documents: `python -m tests.bench.tables` writes them anew.

A document has them between `<!-- table: cifar10 accuracy -->` and `<!-- end of table -->`: nothing in between is
written by hand, and tests/test_tables.py fails where a document differs from the results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from ddoq_core.measure.statistics import interval_of
from tests.places import REPOSITORY

RESULTS = REPOSITORY / "docs" / "results.json"
DOCUMENTS = (REPOSITORY / "docs" / "results.md",)
PLACE = re.compile(r"(<!-- table: ([\w-]+) ([\w-]+) -->\n).*?(?=<!-- end of table -->)", re.DOTALL)
Found = dict[str, Any]


def rendered(text: str, results: Found) -> str:
    """The document with every table as the results have it now."""
    return PLACE.sub(lambda place: f"{place[1]}\n{TABLES[place[3]](results[place[2]])}\n\n", text)


def accuracy(found: Found) -> str:
    """Top-1 of each method, a column for each number of images per class, with half of the 95 % interval."""
    by_ipc = {ipc: found["by_ipc"][ipc]["results"] for ipc in sorted(found["by_ipc"], key=int)}
    cells = {ipc: {row["method"]: _spread(row["top1"]) for row in rows} for ipc, rows in by_ipc.items()}
    methods = dict.fromkeys(row["method"] for rows in by_ipc.values() for row in rows)
    head = ["method", *(f"IPC {ipc}" for ipc in cells)]
    return _table(head, ([method, *(column.get(method, "") for column in cells.values())] for method in methods))


def differences(found: Found) -> str:
    """What was asked of each number of images per class, in points of accuracy."""
    head = ["images per class", "question", "difference", "95 % interval", "p, corrected"]
    rows = [
        [ipc, row["question"], f"{100 * row['mean']:+.1f}", f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}",
         f"{row['p_holm']:.3f}{' sure' if row['significant'] else ''}"]
        for ipc in sorted(found["by_ipc"], key=int)
        for row in found["by_ipc"][ipc]["differences"]
    ]  # fmt: skip
    return _table(head, rows)


def prior(found: Found) -> str:
    """What the stage sample says of pictures from noise and, as the floor, of training images."""
    real = found["of_training_images"]
    names = {"recognised": "recognised, %", "frechet": "Fréchet distance", "precision": "precision", "recall": "recall"}
    rows = [[title, _number(name, found[name]), _number(name, real[name])] for name, title in names.items()]
    return _table(["", "drawn", "training images"], rows)


def measures(found: Found) -> str:
    """W2 to the data, the effective number of points and the gradient gap of each method, by images per class."""
    rows = [
        [ipc, row["method"], f"{row['w2']:.2f}", f"{row['n_eff']:.1f}", f"{row['gradient']:.2f}"]
        for ipc in sorted(found["by_ipc"], key=int)
        for row in found["by_ipc"][ipc]["results"]
    ]
    return _table(["images per class", "method", "W2", "n_eff", "gradient gap"], rows)


TABLES: dict[str, Callable[[Found], str]] = {
    "accuracy": accuracy, "differences": differences, "prior": prior, "measures": measures,
}  # fmt: skip


def _spread(top1: list[float]) -> str:
    interval = interval_of(top1)
    return f"{_percent(interval.mean)} ± {_percent(interval.half)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _number(name: str, value: float) -> str:
    return _percent(value) if name == "recognised" else f"{value:.3g}"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def write_documents() -> None:
    """Write the tables of all documents anew."""
    results = json.loads(RESULTS.read_text())
    for path in DOCUMENTS:
        path.write_text(rendered(path.read_text(), results))


if __name__ == "__main__":
    write_documents()
