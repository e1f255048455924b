"""The method: pure functions on arrays and models, without orchestration, storage or files.

The public names are imported when they are first asked for, so that the rooms' plain values load no scikit-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddoq_core.cluster.estimator import Quantizer
    from ddoq_core.cluster.quantize import Quantization, quantize
    from ddoq_core.cluster.weights import class_weights, effective_sample_size

__all__ = ["Quantization", "Quantizer", "class_weights", "effective_sample_size", "quantize"]

_WHERE = {
    "Quantization": "ddoq_core.cluster.quantize",
    "Quantizer": "ddoq_core.cluster.estimator",
    "quantize": "ddoq_core.cluster.quantize",
    "class_weights": "ddoq_core.cluster.weights",
    "effective_sample_size": "ddoq_core.cluster.weights",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
