"""W2 to the class against K on real latents, the effective dimension fitted to it, and the figure of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ddoq_core import quantize
from ddoq_core.cluster.checks import Method
from ddoq_core.measure.wasserstein import effective_dimension
from tests.bench.latents import Latents

CURVE = (1, 2, 5, 10, 20, 50, 100, 200)
FIT_SHARE = 10  # fit on K ≤ n/10: near K = n, W2 falls to 0 whatever the dimension
METHODS: tuple[Method, ...] = ("exact", "random")

console = Console(width=150)


def draw_curves(sets: list[Latents], path: Path) -> list[dict[str, Any]]:
    """Measure, print and draw every set, one panel each, into the figure at `path`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(sets), figsize=(6 * len(sets), 4.5), squeeze=False, layout="constrained")
    found = [curve(data, axis) for data, axis in zip(sets, axes[0], strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    console.print(f"figure: {path}")
    return found


def curve(data: Latents, axis: Any) -> dict[str, Any]:
    """W2 against K for every class, drawn and fitted."""
    smallest = min(len(z) for z in data.classes.values())
    sizes = [k for k in CURVE if k < smallest]
    curves: dict[str, NDArray[np.float64]] = {m: _curve(data, sizes, m) for m in METHODS}  # (classes, m)
    table = Table("centres, masses", *(f"K = {k}" for k in sizes), "d_eff", title=f"W2 against K: {data.name}")
    fitted = [k for k in sizes if k <= smallest / FIT_SHARE]
    dimension = {m: effective_dimension(fitted, values[:, : len(fitted)]) for m, values in curves.items()}
    for method, values in curves.items():
        table.add_row(method, *(f"{v:.3f}" for v in values.mean(axis=0)), f"{dimension[method]:.1f}")
    _draw(axis, sizes, fitted, curves, dimension)
    axis.set_title(data.name, fontsize=9)
    console.print(table)
    by_class = [effective_dimension(fitted, row[: len(fitted)]) for row in curves["exact"]]
    console.print(f"d_eff of single classes: {min(by_class):.1f} to {max(by_class):.1f}; fitted on K ≤ {fitted[-1]}")
    return {"latents": data.name, "d_eff": round(dimension["exact"], 2)}


def _draw(
    axis: Any,
    sizes: list[int],
    fitted: list[int],
    curves: dict[str, NDArray[np.float64]],
    dimension: dict[str, float],
) -> None:
    """Thin lines for classes, dots for their geometric mean, a dashed line for its fitted slope."""
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    for colour, (method, values) in zip(("C0", "C1"), curves.items(), strict=True):
        centre = np.log(values).mean(axis=0)  # (m,)
        axis.loglog(sizes, values.T, color=colour, linewidth=0.6, alpha=0.4)
        axis.loglog(sizes, np.exp(centre), "o", color=colour, label=f"{method}: d_eff = {dimension[method]:.1f}")
        log_k = np.log(fitted)
        line = centre[: len(fitted)].mean() - (log_k - log_k.mean()) / dimension[method]
        axis.loglog(fitted, np.exp(line), "--", color=colour)
    axis.set(xlabel="K", ylabel="W2 to the class", xticks=sizes)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(ScalarFormatter())
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.legend()


def _curve(data: Latents, sizes: list[int], method: Method) -> NDArray[np.float64]:
    return np.array([[quantize(z, k, method=method).w2 for k in sizes] for z in data.classes.values()])
