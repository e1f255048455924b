"""Figures of a comparison, from its results (a row per images per class, cell and student)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.pages import png_of

COLOURS = {"diffusion": "#4878a8", "autoencoder": "#6aa56a", "medoid": "#c08a3e", "random": "#a85448"}
MARKERS = "osD^v*"
Row = dict[str, Any]


def figures(results: list[Row]) -> dict[str, bytes]:
    """By name, as PNG."""
    return {"accuracy": _accuracy(results), "curves": _curves(results), "theory": _theory(results)}


def _accuracy(results: list[Row]) -> bytes:
    """Top-1 with its interval, a panel for each number of images per class and student."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row["ipc"], row["architecture"]) for row in results))
    rows = {key: [r for r in results if (r["ipc"], r["architecture"]) == key] for key in panels}
    heights = [len(part) for part in rows.values()]
    figure = Figure(figsize=(9, 0.2 * sum(heights) + 1.0 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, ((ipc, architecture), part) in zip(axes, rows.items(), strict=True):
        for y, row in enumerate(part):
            mean, half = 100 * row["top1_mean"], 50 * (row["top1_high"] - row["top1_low"])
            axis.errorbar(mean, y, xerr=half, fmt="o", ms=4, capsize=2, color=COLOURS[row["pictures"]])
        axis.set_yticks(range(len(part)), [row["cell"] for row in part], fontsize=7)
        axis.set_ylim(len(part) - 0.5, -0.5)
        low, high = axis.get_xlim()
        axis.set_xlim(max(low, 0), min(high, 100))
        axis.grid(axis="x", alpha=0.3)
        axis.set_xlabel("top-1 accuracy, %, with 95 % interval over seeds")
        axis.set_title(f"{ipc} images per class, {architecture}", fontsize=9)
    return png_of(figure)


def _curves(results: list[Row]) -> bytes:
    """W2 of weighted centroids and top-1 against the images per class, both on logarithmic axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    from ddoq_core.wasserstein import effective_dimension

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    architecture = results[0]["architecture"]
    ipcs = sorted({row["ipc"] for row in results})
    at = {(row["ipc"], row["cell"]): row for row in results if row["architecture"] == architecture}
    for cell in dict.fromkeys(name for _, name in at):
        line = [at.get((ipc, cell)) or at.get((ipc, _unweighted(at, ipc, cell))) for ipc in ipcs]
        rows = [row for row in line if row is not None]
        if len(rows) < len(ipcs) or rows[-1]["weights"] not in ("mass", "uniform"):
            continue
        style = {"color": COLOURS[rows[-1]["pictures"]], "ls": "-" if rows[-1]["weights"] == "mass" else ":", "ms": 4}
        marker = MARKERS[_order(results, rows[-1]["quantizer"]) % len(MARKERS)]
        if rows[-1]["pictures"] != "autoencoder":  # whose centroids are those of diffusion
            w2 = [row["w2"] for row in rows]
            fit = f", d_eff {effective_dimension(ipcs, w2):.0f}" if len(ipcs) > 1 else ""
            left.plot(ipcs, w2, marker=marker, label=f"{cell}{fit}", **style)
        right.plot(ipcs, [100 * row["top1_mean"] for row in rows], marker=marker, **style)
    for axis, name in ((left, "W2 to the class"), (right, f"top-1 of {architecture}, %")):
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(ipcs, [str(ipc) for ipc in ipcs])
        axis.minorticks_off()
        axis.yaxis.set_major_locator(MaxNLocator(6))
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.set_xlabel("images per class K")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=6)
    return png_of(figure)


def _unweighted(at: dict[tuple[int, str], Row], ipc: int, cell: str) -> str:
    """The cell of one image per class that a cell of more goes on from: there all weights are 1."""
    like = next(row for (_, name), row in at.items() if name == cell)
    alike = (n for (k, n), r in at.items() if k == ipc and all(r[f] == like[f] for f in ("quantizer", "pictures")))
    return next(alike, cell)


def _order(results: list[Row], quantizer: str) -> int:
    return list(dict.fromkeys(row["quantizer"] for row in results)).index(quantizer)


def _theory(results: list[Row]) -> bytes:
    """The gradient gap, which Theorem 1 bounds, and the accuracy against W2."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    ipcs = sorted({row["ipc"] for row in results})
    for k, ipc in enumerate(ipcs):
        for pictures, colour in COLOURS.items():
            rows = [row for row in results if (row["ipc"], row["pictures"]) == (ipc, pictures)]
            style = {"color": colour, "marker": MARKERS[k % len(MARKERS)], "s": 18, "label": f"{pictures}, K = {ipc}"}
            w2 = np.array([row["w2"] for row in rows])
            if rows:
                left.scatter(w2, [row["gradient"] for row in rows], **style)
                right.scatter(w2, [100 * row["top1_mean"] for row in rows], **style)
    left.set_ylabel("gradient gap at an untrained student")
    right.set_ylabel("top-1, %")
    for axis in (left, right):
        axis.set_xlabel("W2 to the class")
        axis.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=6)
    return png_of(figure)
