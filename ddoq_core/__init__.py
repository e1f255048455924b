"""The method: pure functions on arrays and models, without orchestration, storage or files."""

from ddoq_core.cluster.estimator import Quantizer
from ddoq_core.cluster.quantize import Quantization, quantize
from ddoq_core.cluster.weights import class_weights, effective_sample_size

__all__ = ["Quantization", "Quantizer", "class_weights", "effective_sample_size", "quantize"]
