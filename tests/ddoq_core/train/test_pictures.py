"""The images of a training are not copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ddoq_core.images import to_unit
from ddoq_core.train.pictures import Pictures
from tests.ddoq_core.train.test_teachers import colours


def test_batches_are_taken_of_images_that_are_held_once() -> None:
    images, _ = colours(6)
    pictures = Pictures(images, torch.device("cpu"))
    assert (len(pictures), pictures.size_px) == (6, 8)
    assert np.shares_memory(pictures.x.numpy(), images)
    batch = pictures.batch(torch.tensor([4, 1]))
    assert torch.equal(batch, to_unit(images[[4, 1]]))
    assert batch.dtype == torch.float32 and batch.is_contiguous()


def test_batches_are_taken_of_a_mapped_file(tmp_path: Path) -> None:
    images, _ = colours(6)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    pictures = Pictures(mapped, torch.device("cpu"))
    assert np.shares_memory(pictures.x.numpy(), mapped)
    assert torch.equal(pictures.batch(torch.arange(6)), to_unit(images))
