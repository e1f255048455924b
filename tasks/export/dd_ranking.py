"""Tensors as DD-Ranking takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.export.handout import Handout

Normal = dict[str, tuple[float, float, float]]  # mean and std of its channels
CIFAR: Normal = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}  # of CIFAR-100 too
OTHERS: Normal = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR_10 = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}


def write(handout: Handout, folder: Path) -> None:
    """What DD-Ranking's evaluators take (arXiv 2505.13300): `images.pt` (N, 3, S, S) float32, class after class,
    `labels.pt` (N, C) logits. It knows no weights: they are beside.

    The images are normalised as its `ddranking/utils/data.py` does the real ones that it tests on: it shows a student
    these tensors as they are.
    """
    import torch

    from ddoq_core.images import to_unit

    normal = normal_of(handout)
    mean, std = (torch.tensor(normal[key]).view(3, 1, 1) for key in ("mean", "std"))
    torch.save((to_unit(handout.images) - mean) / std, folder / "images.pt")
    torch.save(torch.from_numpy(handout.weights), folder / "weights.pt")
    if handout.logits is not None:
        torch.save(torch.from_numpy(handout.logits), folder / "labels.pt")
    else:
        torch.save(torch.from_numpy(handout.labels), folder / "labels.pt")


def told_of(handout: Handout) -> dict[str, Any]:
    """What the tensors do not say: by what they are normalised, and the classes, of which labels are soft."""
    return {**normal_of(handout), "labels": handout.labels.tolist()}


def normal_of(handout: Handout) -> Normal:
    """By which DD-Ranking normalises the data set that these classes are of."""
    kind = handout.card.get("source", {}).get("kind", "")
    return CIFAR if set(handout.classes) == CIFAR_10 or kind.startswith("cifar") else OTHERS
