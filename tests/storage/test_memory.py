"""How much memory there is and a process takes, and arrays that may be larger."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storage import memory
from storage.clock import Clock


def test_memory_is_the_containers_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = memory.memory_bytes()
    assert machine > 2**30 / 2
    for text, expected in (("max\n", machine), (f"{2**30 // 4}\n", 2**30 // 4)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(memory, "MEMORY_LIMITS", (str(tmp_path / "memory.max"), "/nowhere"))
        assert memory.memory_bytes() == expected


@pytest.mark.parametrize(("share", "in_a_file"), [(4, False), (1 << 50, True)])
def test_an_array_that_takes_too_much_of_the_memory_lies_in_a_file(
    share: int, in_a_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "ARRAY_SHARE", share)
    parts = np.split(np.arange(36, dtype=np.uint8).reshape(3, 2, 2, 3), [1])
    images = memory.join(parts, (3, 2, 2, 3), tmp_path)
    assert isinstance(images, np.memmap) == in_a_file
    np.testing.assert_array_equal(images.ravel(), np.arange(36))
    assert not list(tmp_path.iterdir()), "the file has no name, so nothing is left of it whatever happens"


def test_a_programs_peak_is_its_own_not_that_of_who_started_it() -> None:
    ours = bytearray(1 << 30)  # zeros are not in memory until they are written
    ours[:: 1 << 12] = b"1" * (1 << 18)
    told = "from storage.clock import Clock; print(Clock.peak_bytes())"
    peak = int(subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout)
    assert 5 << 20 < peak < 1 << 28 <= len(ours) < Clock.peak_bytes()
