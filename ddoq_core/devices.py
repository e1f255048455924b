"""Where models run."""

from __future__ import annotations

import os

import torch


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU; DDOQ_DEVICE names another, e.g. cpu or cuda:1."""
    return torch.device(os.environ.get("DDOQ_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
