"""Tensors as DD-Ranking takes them."""

from __future__ import annotations

from pathlib import Path

from tasks.export.handout import Handout


def write(handout: Handout, folder: Path) -> None:
    """What DD-Ranking's evaluators take (arXiv 2505.13300): `images.pt` (N, 3, S, S) float32 in [0, 1], class after
    class, `labels.pt` (N, C) logits. It knows no weights: they are beside.
    """
    import torch

    from ddoq_core.images import to_unit

    torch.save(to_unit(handout.images), folder / "images.pt")
    torch.save(torch.from_numpy(handout.weights).float(), folder / "weights.pt")
    if handout.logits is not None:
        torch.save(torch.from_numpy(handout.logits), folder / "labels.pt")
