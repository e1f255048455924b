"""Figures of a comparison, from its results (a row per images per class, cell and student)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.pages.render import png_of

COLOURS = {
    "diffusion": "#4878a8",
    "autoencoder": "#6aa56a",
    "medoid": "#c08a3e",
    "member": "#d9b36c",
    "random": "#a85448",
    "given": "#7a5aa8",
}
COLOURS |= {"selection": "#2f4f7f", "mosaic": "#8f8f3f", "mgd3": "#3f8f8f", "dmgd": "#8f3f7f"}
MARKERS = "osD^v*"
LINES = {"uniform": ":", "sqrt": "--", "mass": "-"}
Row = dict[str, Any]


def figures(results: list[Row]) -> dict[str, bytes]:
    """By name, as PNG; those against W2 where there are prototypes."""
    known = [row for row in results if row["w2"] is not None]
    return {"accuracy": _accuracy(results), **({"curves": _curves(known), "theory": _theory(known)} if known else {})}


def accuracy_by_method(rows: list[Row]) -> bytes:
    """PNG of a report: by method and student the top-1 of every seed, their mean with its 95 % interval, and W2."""
    from matplotlib.figure import Figure

    from ddoq_core.measure.statistics import interval_of

    names = [f"{row['method']}\n{row['architecture']}" for row in rows]
    figure = Figure(figsize=(9, 0.6 * len(rows) + 1.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for y, row in enumerate(rows):
        top1 = [100 * value for value in row["top1"]]
        half = interval_of(top1).half if len(top1) > 1 else 0.0
        left.plot(top1, [y] * len(top1), "o", ms=3, color="#b0b0b0")
        left.errorbar(100 * row["top1_mean"], y, xerr=half, fmt="o", ms=5, capsize=3, color=COLOURS["diffusion"])
        if row["w2"] is not None:
            right.plot(row["w2"], y, "o", ms=5, color=COLOURS["random"])
    left.set_yticks(range(len(rows)), names)
    left.set_ylim(len(rows) - 0.5, -0.5)
    low, high = left.get_xlim()
    left.set_xlim(max(low, 0), min(high, 100))
    left.set_xlabel("top-1 accuracy, %: seeds, mean, 95 % interval")
    right.set_xlabel("W2 to the class, mean over classes")
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
    return png_of(figure)


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
            mean, half = 100 * row["top1_mean"], 100 * row["top1_half"]
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

    from ddoq_core.measure.wasserstein import effective_dimension

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    architecture = results[0]["architecture"]
    in_loss = [row for row in results if row["architecture"] == architecture and row["weights_in"] == "loss"]
    at = {(row["ipc"], row["quantizer"], row["pictures"], row["weights"]): row for row in in_loss}
    ipcs = sorted({ipc for ipc, *_ in at})
    quantizers = list(dict.fromkeys(row["quantizer"] for row in in_loss))
    of_one = {row["pictures"]: row for row in in_loss if row["ipc"] == 1}  # where every line of its pictures begins
    for _, quantizer, pictures, weights in [key for key in at if key[0] == ipcs[-1]]:
        rows = [of_one[pictures] if ipc == 1 else at[ipc, quantizer, pictures, weights] for ipc in ipcs]
        marker = MARKERS[quantizers.index(quantizer) % len(MARKERS)]
        style = {"color": COLOURS[pictures], "ls": LINES.get(weights, "-."), "marker": marker, "ms": 4}
        if pictures != "autoencoder":  # whose centroids are those of diffusion
            w2 = [row["w2"] for row in rows]
            fit = f", d_eff {effective_dimension(ipcs, w2):.0f}" if len(ipcs) > 1 else ""
            left.plot(ipcs, w2, label=f"{rows[-1]['cell']}{fit}", **style)
        right.plot(ipcs, [100 * row["top1_mean"] for row in rows], **style)
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


def _theory(results: list[Row]) -> bytes:
    """The gradient gap, which Theorem 1 bounds, and the accuracy against W2."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    architecture = results[0]["architecture"]
    ipcs = sorted({row["ipc"] for row in results})
    for k, ipc in enumerate(ipcs):
        for pictures, colour in COLOURS.items():
            own = {"ipc": ipc, "pictures": pictures, "architecture": architecture}
            rows = [row for row in results if own.items() <= row.items()]
            style = {"color": colour, "marker": MARKERS[k % len(MARKERS)], "s": 18, "label": f"{pictures}, K = {ipc}"}
            w2 = np.array([row["w2"] for row in rows])
            if rows:
                left.scatter(w2, [row["gradient"] for row in rows], **style)
                right.scatter(w2, [100 * row["top1_mean"] for row in rows], **style)
    left.set_ylabel("gradient gap at an untrained student")
    right.set_ylabel(f"top-1 of {architecture}, %")
    for axis in (left, right):
        axis.set_xlabel("W2 to the class")
        axis.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=6)
    return png_of(figure)
