"""One file of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.export.handout import Handout


def write(handout: Handout, folder: Path) -> None:
    """`distilled.pt`: images (N, 3, S, S) uint8, labels int64, weights float64, logits float32, class names."""
    import torch

    tensors: dict[str, Any] = {
        "images": torch.from_numpy(handout.images).permute(0, 3, 1, 2).contiguous(),
        "labels": torch.from_numpy(handout.labels),
        "weights": torch.from_numpy(handout.weights),
        "classes": list(handout.classes),
    }
    if handout.logits is not None:
        tensors["logits"] = torch.from_numpy(handout.logits)
    torch.save(tensors, folder / "distilled.pt")
