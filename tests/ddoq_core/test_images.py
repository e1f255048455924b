"""Images are brought to size as the sources do it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from ddoq_core.images import preprocess, resized, to_mosaics, to_tiles


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


def test_a_mosaic_is_of_tiles_that_follow_each_other_row_by_row() -> None:
    tiles = np.arange(18, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, 3)  # of one pixel each
    mosaics = to_mosaics(tiles, 3)
    assert mosaics[..., 0].tolist() == [
        [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
        [[9, 10, 11], [12, 13, 14], [15, 16, 17]],
    ]
    np.testing.assert_array_equal(to_tiles(mosaics, 3), tiles.repeat(3, 1).repeat(3, 2))
    assert to_tiles(mosaics, 1).base is mosaics.base, "no mosaic: not copied"


def test_tiles_are_brought_up_bilinearly() -> None:
    tiles = np.array([[[0, 80], [0, 80]], [[0, 0], [40, 40]], [[8, 8], [8, 8]], [[0, 40], [80, 120]]], np.uint8)
    seen = to_tiles(to_mosaics(tiles[..., None].repeat(3, 3), 2), 2)
    assert seen.shape == (4, 4, 4, 3) and (seen == seen[..., :1]).all()
    assert seen[0, ..., 0].tolist() == [[0, 20, 60, 80]] * 4  # of two pixels ¾ and ¼, at the edge one alone
    assert seen[1, ..., 0].T.tolist() == [[0, 10, 30, 40]] * 4
    assert seen[2, ..., 0].tolist() == [[8] * 4] * 4
    assert seen[3, ..., 0].tolist() == [[0, 10, 30, 40], [20, 30, 50, 60], [60, 70, 90, 100], [80, 90, 110, 120]]
