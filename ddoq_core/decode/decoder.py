"""Centroids to pictures: noise from each picture's own seed, denoised by the prior, decoded, brought to size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ddoq_core.decode.noise import noise_of
from ddoq_core.encode.autoencoder import Autoencoder, pictures_of
from ddoq_core.images import resized
from ddoq_core.memory import HalvingBatches

Sample = Callable[..., torch.Tensor]


class Decoder:
    """Decodes in batches of at most `batch_size`, in smaller ones where memory is short.

    sample  a prior's `sample` with its settings bound, None to decode the centroids as they are
    """

    def __init__(self, model: Autoencoder, sample: Sample | None, size_px: int, batch_size: int) -> None:
        self.model, self.sample, self.size_px = model, sample, size_px
        self._denoising, self._decoding = HalvingBatches(batch_size), HalvingBatches(batch_size)

    def __call__(
        self, z: torch.Tensor, labels: torch.Tensor, seeds: Sequence[int], masses: torch.Tensor | None = None
    ) -> NDArray[np.uint8]:
        """Pictures (n, size_px, size_px, 3) of centroids z (n, C, H, W); each depends on its own row alone, up to
        the rounding of float sums, which is that of its batch; with masses (n,) of the centroids, by which the prior
        is guided, on the others of its class in the batch too."""
        return self.pictures(self.latents(z, labels, seeds, masses))

    def latents(
        self, z: torch.Tensor, labels: torch.Tensor, seeds: Sequence[int], masses: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the prior makes of centroids, (n, C, H, W)."""
        if self.sample is None:
            return z
        return self._denoising.map(self._denoise, z, labels, seeds, *([] if masses is None else [masses]))

    def pictures(self, z: torch.Tensor) -> NDArray[np.uint8]:
        """Pictures (n, size_px, size_px, 3) of latents (n, C, H, W)."""
        at_once = self.model.batch_size(z.shape[-1] * self.model.downscale)
        self._decoding.size = min(self._decoding.size, at_once)
        pictures = self._decoding.map(lambda part: torch.from_numpy(pictures_of(self.model, part)), z)
        return resized(pictures.numpy(), self.size_px)

    def _denoise(
        self, z: torch.Tensor, labels: torch.Tensor, seeds: Sequence[int], masses: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert self.sample is not None
        own = {} if masses is None else {"masses": masses}
        return self.sample(z, labels, noise_of(seeds, tuple(z.shape[1:])), seeds=seeds, **own)
