"""The method: pure functions on arrays and models, without orchestration, storage or files."""

from ddoq_core.quantize import Quantization, quantize
from ddoq_core.weights import class_weights, effective_sample_size

__all__ = ["Quantization", "class_weights", "effective_sample_size", "quantize"]
