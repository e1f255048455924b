"""Images are brought to size as the sources do it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from ddoq_core.images import preprocess, resized


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (64, 64), (257, 1000)])
def test_evaluation_sees_what_sre2l_d4m_and_rded_evaluate_on(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    theirs = Compose([Resize(256), CenterCrop(224)])(image)
    np.testing.assert_array_equal(preprocess(image, 224, center_crop=0.875), np.asarray(theirs))
    minimax = Compose([Resize(224), CenterCrop(224)])(image)
    np.testing.assert_array_equal(preprocess(image, 224, center_crop=1.0), np.asarray(minimax))
    assert np.abs(preprocess(image, 224).astype(int) - np.asarray(minimax)).max() > 10, "ours keeps edges sharper"


def test_images_are_squashed_and_pictures_saved_as_by_d4m() -> None:
    """Its data set is shown through Resize((512, 512)), and its pictures are saved by PIL's resize((224, 224))."""
    pixels = np.random.default_rng(1).integers(0, 256, (300, 451, 3), np.uint8)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(preprocess(image, 512, "squash"), np.asarray(Resize((512, 512))(image)))
    square = preprocess(image, 512, "squash")
    np.testing.assert_array_equal(resized(square[None], 224)[0], np.asarray(Image.fromarray(square).resize((224, 224))))
