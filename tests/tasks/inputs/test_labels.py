"""Stored labels on disk: a step is read as it was written, and little else with it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from ddoq_core.train.batches import batch_slice
from ddoq_core.train.protocol import num_batches
from storage.artifact import Artifact, Damaged
from storage.clock import Clock
from tasks.inputs import labels
from tests.tasks.inputs.test_models import flip


@pytest.mark.parametrize("chunk_bytes", [1, 20, 60, 100, 1 << 20])
@pytest.mark.parametrize(("num_images", "batch_size"), [(10, 4), (9, 4), (10, 10), (11, 10), (10, 64)])
def test_a_step_is_read_as_it_was_written_however_it_is_chunked(
    num_images: int, batch_size: int, chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(labels, "BLOCK_EPOCHS", 3)
    artifact, rng = (
        Artifact(tmp_path, "label", 1, {"num_epochs": 4, "batch_size": batch_size}),
        np.random.default_rng(0),
    )
    per_epoch, written = num_batches(num_images, batch_size), []
    for unit, block in labels.label_blocks(4, num_images, 2).items():
        arrays = {
            "rows": rng.integers(0, 99, (len(block), num_images), dtype=np.int32),
            "flip": np.zeros((len(block), num_images), bool),  # of a chunk of fill values zarr makes no file
            "box": rng.integers(0, 99, (len(block), per_epoch, 4), dtype=np.int16),
            "logits": rng.standard_normal((len(block), num_images, 2)).astype(np.float16),
        }
        artifact.commit(unit, labels.write_labels(artifact, unit, arrays, batch_size), inputs="", clock=Clock())
        written += [{name: array[e] for name, array in arrays.items()} for e in range(len(block))]
    read_step = labels.step_reader(artifact, num_images, 2)
    for epoch, k in product(range(4), range(per_epoch)):
        found, own = read_step(epoch, k), batch_slice(k, num_images, batch_size)
        assert found.keys() == written[epoch].keys()
        for name, array in written[epoch].items():
            np.testing.assert_array_equal(found[name], array[k if name == "box" else own])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts what a process reads")
def test_of_a_large_epoch_a_step_reads_its_own_bytes(tmp_path: Path) -> None:
    artifact, rng = Artifact(tmp_path, "label", 1, {"num_epochs": 2, "batch_size": 512}), np.random.default_rng(0)
    [unit] = labels.label_blocks(2, 8192, 1000)
    rows, logits = np.arange(2 * 8192, dtype=np.int32).reshape(2, -1), rng.standard_normal((2, 8192, 1000), np.float32)
    arrays = {"rows": rows, "logits": logits.astype(np.float16)}
    artifact.commit(unit, labels.write_labels(artifact, unit, arrays, 512), inputs="", clock=Clock())
    read_step = labels.step_reader(artifact, 8192, 1000)
    before = _bytes_read()
    found = read_step(1, 7)
    step_bytes = sum(array.nbytes for array in found.values())
    assert step_bytes == 512 * (4 + 2000)
    assert _bytes_read() - before < 3 * step_bytes, "once to be checked, once to be read; compressed"
    chunk = artifact.path / labels.LABELS / unit / "logits/c/1/8/0"
    flip(chunk)
    np.testing.assert_array_equal(read_step(1, 9)["rows"], rows[1, 9 * 512 : 10 * 512])
    with pytest.raises(Damaged, match="logits/c/1/8/0"):
        read_step(1, 8)


def _bytes_read() -> int:
    """By this process so far, of whatever lies in the system's cache too."""
    return int(Path("/proc/self/io").read_text().split()[1])
