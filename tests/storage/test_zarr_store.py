"""Latents and class arrays on disk: what plain zarr reads, and what damage does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from storage import zarr_store
from storage.artifact import Artifact, Damaged
from storage.clock import Clock
from storage.packs import Packs
from storage.zarr_store import ClassStore, LatentStore, block_names

SHAPE = (4, 2, 2)


def make_latents(n: int, seed: int = 0) -> NDArray[np.float16]:
    return np.random.default_rng(seed).normal(size=(n, *SHAPE)).astype(np.float16)


def write_latents(store: LatentStore, name: str, z: NDArray[np.float16]) -> list[Path]:
    store.prepare_pack(name, {name: np.arange(len(z)) + 100}, SHAPE)
    size = zarr_store.BLOCK_IMAGES
    return [f for b in range(len(block_names(name, len(z)))) for f in store.write_block(name, b, z[b * size :][:size])]


def only_chunk(folder: Path) -> Path:
    (chunk,) = (p for p in (folder / "c").rglob("*") if p.is_file())
    return chunk


@pytest.fixture
def store(tmp_path: Path) -> LatentStore:
    return LatentStore(tmp_path / "latents.zarr")


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_latents_come_back_as_written(store: LatentStore, n: int) -> None:
    z = make_latents(n)
    write_latents(store, "n01", z)
    np.testing.assert_array_equal(store.read_class("n01"), z)
    np.testing.assert_array_equal(store.read_rows("n01"), np.arange(n) + 100)
    assert store.read_class("n01").dtype == np.float16


def test_a_class_of_latents_is_one_shard_of_one_file(store: LatentStore) -> None:
    write_latents(store, "n01", make_latents(200))
    assert only_chunk(store.path / "n01" / "latents").name == "0"


def test_plain_zarr_and_dask_read_the_latents(store: LatentStore) -> None:
    z = {name: make_latents(70, seed) for seed, name in enumerate(("n01", "n02"))}
    for name, latents in z.items():
        write_latents(store, name, latents)
    opened = zarr.open(store.path, mode="r")
    assert sorted(opened.group_keys()) == ["n01", "n02"]
    for name, latents in z.items():
        np.testing.assert_array_equal(opened[f"{name}/latents"][:], latents)
        lazy = dask.array.from_zarr(str(store.path), component=f"{name}/latents")
        np.testing.assert_array_equal(lazy.compute(scheduler="sync"), latents)


@pytest.mark.parametrize("n", [1, 63, 65, 2 * 64])
def test_a_misaligned_block_is_refused_with_both_shapes(store: LatentStore, n: int) -> None:
    store.prepare_pack("n01", {"n01": np.arange(64)}, SHAPE)
    with pytest.raises(ValueError, match=rf"\(64, 4, 2, 2\), got \({n}, 4, 2, 2\).*one writer"):
        store.write_block("n01", 0, make_latents(n))
    assert np.isnan(store.read_class("n01")).all()


def test_a_class_above_a_block_is_written_in_any_order(store: LatentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_store, "BLOCK_IMAGES", 128)
    z = make_latents(130)
    assert block_names("n01", 130) == ["n01/0", "n01/1"] and block_names("n01", 128) == ["n01/0"]
    store.prepare_pack("n01", {"n01": np.arange(130)}, SHAPE)
    second = store.write_block("n01", 1, z[128:])
    assert np.isnan(store.read_class("n01")[:128]).all()
    first = store.write_block("n01", 0, z[:128])
    np.testing.assert_array_equal(store.read_class("n01"), z)
    assert [len(block) for block in store.read_blocks("n01")] == [128, 2]
    np.testing.assert_array_equal(np.concatenate(list(store.read_blocks("n01"))), z)
    some = np.array([129, 3, 77])
    np.testing.assert_array_equal(store.read_some("n01", some), z[some])
    assert first[-1] != second[-1] and first[-1].is_file() and second[-1].is_file()


def test_preparing_again_keeps_what_is_written(store: LatentStore) -> None:
    z = make_latents(64)
    write_latents(store, "n01", z)
    store.prepare_pack("n01", {"n01": np.arange(64) + 100}, SHAPE)
    np.testing.assert_array_equal(store.read_class("n01"), z)


@pytest.mark.parametrize("broken", ["zarr.json", "latents/zarr.json", "rows/zarr.json", "rows/c/0"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_class_whose_frame_is_damaged_is_made_anew(
    store: LatentStore, broken: str, damage: Callable[[Path], object]
) -> None:
    z = make_latents(64)
    write_latents(store, "n01", z)
    damage(store.path / "n01" / broken)
    assert all(path.exists() for path in write_latents(store, "n01", z))
    np.testing.assert_array_equal(store.read_class("n01"), z)
    np.testing.assert_array_equal(store.read_rows("n01"), np.arange(64) + 100)


@pytest.mark.parametrize("name", ["zarr.json", "latents/zarr.json", "rows/zarr.json", "rows/c/0"])
def test_no_flipped_bit_of_a_classs_frame_outlives_its_preparation(store: LatentStore, name: str) -> None:
    """A bit in a key of JSON leaves what zarr opens without a word."""
    rows = np.arange(70)
    store.prepare_pack("cat", {"cat": rows}, (4, 2, 2))
    file = store.path / "cat" / name
    whole = file.read_bytes()
    for at in range(0, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        file.write_bytes(data)
        store.prepare_pack("cat", {"cat": rows}, (4, 2, 2))
        assert file.read_bytes() == whole, at


def test_a_missing_chunk_reads_as_nan_and_its_unit_as_missing(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, "encode", 1, {})
    store = LatentStore(artifact.path / "latents.zarr")
    files = write_latents(store, "n01", make_latents(64))
    artifact.commit("n01/0", files, inputs="in", clock=Clock())
    assert artifact.holds("n01/0", "in")
    only_chunk(store.path / "n01" / "latents").unlink()
    assert np.isnan(store.read_class("n01")).all()
    assert not artifact.holds("n01/0", "in")


def test_a_checked_store_reads_no_fill_value(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, "encode", 1, {})
    store = LatentStore(artifact.path / "latents.zarr", artifact.check)
    artifact.commit("n01/0", write_latents(store, "n01", make_latents(64)), inputs="in", clock=Clock())
    np.testing.assert_array_equal(store.read_class("n01"), make_latents(64))
    only_chunk(store.path / "n01" / "latents").unlink()
    for read in (store.read_class, store.read_rows, store.shape_of):
        with pytest.raises(Damaged, match="unit n01/0"):
            read("n01")


def test_every_block_of_a_checked_class_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_store, "BLOCK_IMAGES", 128)
    looked: list[str] = []
    store = LatentStore(tmp_path / "latents.zarr", looked.append)
    write_latents(store, "n01", make_latents(300))
    store.read_class("n01")
    assert looked == ["n01/0", "n01/1", "n01/2"]
    looked.clear()
    for k, _ in enumerate(store.read_blocks("n01")):
        assert looked[-1] == f"n01/{k}"
    looked.clear()
    store.read_some("n01", np.array([299, 0]))
    assert set(looked) == {"n01/0", "n01/2"}


def test_a_flipped_bit_never_reads_as_other_latents(store: LatentStore) -> None:
    z = make_latents(64)
    write_latents(store, "n01", z)
    chunk = only_chunk(store.path / "n01" / "latents")
    assert_no_flip_reads_wrong(chunk, lambda: store.read_class("n01"), z)


def test_a_flipped_bit_never_reads_as_another_picture(tmp_path: Path) -> None:
    store = ClassStore(tmp_path / "images.zarr")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    store.write_class("n01", {"images": images})
    chunk = only_chunk(store.path / "n01" / "images")
    assert_no_flip_reads_wrong(chunk, lambda: store.read_class("n01")["images"], images)


def assert_no_flip_reads_wrong(
    chunk: Path, read: Callable[[], NDArray[np.generic]], truth: NDArray[np.generic]
) -> None:
    whole = chunk.read_bytes()
    places = sorted({*range(24), *range(0, len(whole), len(whole) // 40), *range(len(whole) - 24, len(whole))})
    num_refused = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        chunk.write_bytes(damaged)
        try:
            found = read()
        except (RuntimeError, ValueError):
            num_refused += 1
        else:  # a bit that no reader looks at
            np.testing.assert_array_equal(found, truth)
    assert num_refused >= len(places) - 3
    chunk.write_bytes(whole)
    np.testing.assert_array_equal(read(), truth)


def test_class_arrays_come_back_with_their_types_and_attributes(tmp_path: Path) -> None:
    store = ClassStore(tmp_path / "prototypes.zarr")
    arrays = {
        "centroids": np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32),
        "counts": np.array([5, 4, 1]),
        "assignment": np.zeros(10, np.int32),
    }
    assert store.write_class("n01", arrays, inertia=1.5) == [store.path / "n01"]
    found = store.read_class("n01")
    assert found.keys() == arrays.keys()
    for key, value in arrays.items():
        np.testing.assert_array_equal(found[key], value)
        assert found[key].dtype == value.dtype
        lazy = dask.array.from_zarr(str(store.path), component=f"n01/{key}")
        np.testing.assert_array_equal(lazy.compute(scheduler="sync"), value)
    assert zarr.open(store.path, mode="r")["n01"].attrs["inertia"] == 1.5


def test_a_class_is_replaced_as_one(tmp_path: Path) -> None:
    store = ClassStore(tmp_path / "prototypes.zarr")
    store.write_class("n01", {"centroids": np.zeros(3), "counts": np.ones(3)})
    store.write_class("n01", {"counts": np.ones(2)})
    assert {k: len(v) for k, v in store.read_class("n01").items()} == {"counts": 2}
    with pytest.raises(AttributeError):
        store.write_class("n01", {"counts": None})  # type: ignore[dict-item]
    assert sorted(p.name for p in store.path.iterdir()) == ["n01", "zarr.json"]
    assert len(store.read_class("n01")["counts"]) == 2


@pytest.mark.parametrize("side", [2, 200], ids=["one chunk", "a chunk a class"])
def test_classes_of_a_pack_are_read_each_alone(tmp_path: Path, side: int) -> None:
    packs = Packs({"a..c": ("a", "b", "c"), "d": ("d",)})
    store, rng = ClassStore(tmp_path / "images.zarr", packs=packs), np.random.default_rng(0)
    sizes = {"a": 2, "b": 5, "c": 3, "d": 4}
    classes = {name: {"images": rng.integers(0, 256, (n, side, side, 3)).astype(np.uint8)} for name, n in sizes.items()}
    for pack, names in packs.classes.items():
        assert store.write_pack(pack, {name: classes[name] for name in names}, seed=0) == [store.path / pack]
    for name, arrays in classes.items():
        np.testing.assert_array_equal(store.read_array(name, "images"), arrays["images"])
        np.testing.assert_array_equal(store.read_class(name)["images"], arrays["images"])
        assert store.shape_of(name, "images") == arrays["images"].shape and store.keys_of(name) == {"images"}
    group = zarr.open(store.path, mode="r")["a..c"]
    assert (group.attrs["classes"], group["images"].attrs["sizes"]) == (["a", "b", "c"], [2, 5, 3])
    assert group["images"].shape == (10, side, side, 3) and group["images"].chunks[0] == (10 if side == 2 else 5)
    chunk = only_chunk(store.path / "a..c" / "images")
    assert_no_flip_reads_wrong(chunk, lambda: zarr.open(store.path, mode="r")["a..c/images"][:], group["images"][:])


def test_latents_of_a_pack_are_read_each_class_alone(tmp_path: Path) -> None:
    store = LatentStore(tmp_path / "latents.zarr", packs=Packs({"a..b": ("a", "b")}))
    z = {"a": make_latents(70, 1), "b": make_latents(90, 2)}
    store.prepare_pack("a..b", {"a": np.arange(70), "b": np.arange(70, 160)}, SHAPE)
    store.write_block("a..b", 0, np.concatenate(list(z.values())))
    for name, start in (("a", 0), ("b", 70)):
        np.testing.assert_array_equal(store.read_class(name), z[name])
        np.testing.assert_array_equal(store.read_block(name, 0), z[name])
        np.testing.assert_array_equal(store.read_rows(name), np.arange(start, start + len(z[name])))
        np.testing.assert_array_equal(store.read_some(name, np.array([64, 2])), z[name][[64, 2]])
