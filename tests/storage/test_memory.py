"""Arrays that may be larger than the memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from storage import memory


@pytest.mark.parametrize(("share", "in_a_file"), [(4, False), (1 << 50, True)])
def test_an_array_that_takes_too_much_of_the_memory_lies_in_a_file(
    share: int, in_a_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "ARRAY_SHARE", share)
    images = memory.empty_images((3, 2, 2, 3), tmp_path)
    assert isinstance(images, np.memmap) == in_a_file
    images[:] = np.arange(36).reshape(3, 2, 2, 3)
    np.testing.assert_array_equal(images.ravel(), np.arange(36))
    assert not list(tmp_path.iterdir()), "the file has no name, so nothing is left of it whatever happens"
