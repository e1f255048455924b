"""scikit-learn's handwritten digits, the data set that needs no file."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from storage.sources.base import ArraySource


class DigitsSource(ArraySource):
    """1,797 digits, 8×8 px, 17 grey levels."""

    def fingerprint(self) -> str:
        return "digits"

    def arrays(self) -> tuple[NDArray[np.uint8], list[str], list[str]]:
        return self._digits

    @cached_property
    def _digits(self) -> tuple[NDArray[np.uint8], list[str], list[str]]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
        return pixels, [str(label) for label in bunch.target], [""] * len(pixels)
