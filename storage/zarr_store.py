"""Zarr stores with one group per class, readable by plain `zarr.open`.

Chunks are compressed with zstd and carry a checksum, and missing floats read as NaN. Arrays have named axes and say
what they hold, so that xarray opens a store as a tree; the metadata of a finished one is consolidated by its artifact
(storage/frame.py). One writer owns one shard: two would lose data silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from storage.files import whole_folder
from storage.frame import ROOT, write_root
from storage.names import file_name

BLOCK_IMAGES = 2048  # images in one shard of latents: the unit that one task writes
CHUNK_IMAGES = 64  # images that are decompressed together


@dataclass(frozen=True)
class Meaning:
    """What an array's numbers are, as readers label them (CF), and its axes, of which it may have the first only. An
    axis is one size in a class."""

    long_name: str
    axes: tuple[str, ...]


Meanings = Mapping[str, Meaning]

LATENT_AXES = ("image", "channel", "height", "width")
LATENTS = Meaning("latents of the images, (E(x) - shift) * scale as the diffusion prior takes them", LATENT_AXES)
ROWS = Meaning("rows of the images in the index", LATENT_AXES[:1])

Check = Callable[..., None]  # raises for a unit, or some files of it, not as written, before it is read


def _as_it_is(unit: str, of: Callable[[str], bool] | None = None) -> None:
    """No check: of a chunk that is gone, fill values are read."""


def codec() -> ZstdCodec:
    """Fast zstd whose frames are checksummed: a flipped bit raises an error instead of reading as a number."""
    return ZstdCodec(level=1, checksum=True)


class LatentStore:
    """`latents.zarr`: per class `latents (n, C, H, W) float16` and `rows (n,) int64` of the index.

    check  is asked about each unit "<class>/<block>" that is read
    """

    def __init__(self, path: Path, check: Check = _as_it_is) -> None:
        self.path, self._check = path, check

    def prepare_class(self, name: str, rows: NDArray[np.int64], shape: tuple[int, ...]) -> None:
        """Make the empty arrays of a class, before any of its latents. Those that are there to the last bit are kept;
        of others all blocks are gone too, as the metadata is a part of each."""
        folder = class_folder(self.path, name)
        files = _arrays_of(name, rows, shape)
        if folder.exists() and _holds(folder, files):
            return
        write_root(self.path)
        with whole_folder(folder, durable=False) as scratch:  # whoever commits the unit brings it to the disk
            _write_out(files, scratch)

    def write_block(self, name: str, block: int, latents: NDArray[np.float16]) -> list[Path]:
        """Write one shard (at most BLOCK_IMAGES, C, H, W). Returns the files that make it up."""
        array = zarr.open_array(class_folder(self.path, name) / "latents", mode="r+")
        start = block * BLOCK_IMAGES
        expected = min(BLOCK_IMAGES, array.shape[0] - start)
        if latents.shape != (expected, *array.shape[1:]):
            raise ValueError(
                f"block {block} of class {name} takes {(expected, *array.shape[1:])}, got {latents.shape}: it must be "
                "written whole, by one writer"
            )
        folder = class_folder(self.path, name)
        chunk = folder / "latents" / "c" / "/".join([str(block)] + ["0"] * (array.ndim - 1))
        chunk.unlink(missing_ok=True)  # zarr would read a last shard that is there, damaged or not, to fill it up
        array[start : start + expected] = latents
        return [folder / "zarr.json", folder / "latents" / "zarr.json", folder / "rows", chunk]

    def read_class(self, name: str) -> NDArray[np.float16]:
        """Latents (n, C, H, W) of a class, in the order of `rows`."""
        self._check(f"{name}/0")  # which has the class's metadata
        array = self._array(name, "latents")
        for unit in block_names(name, array.shape[0])[1:]:
            self._check(unit)
        return np.asarray(array[:])

    def read_block(self, name: str, block: int) -> NDArray[np.float16]:
        """The latents of one block of a class, (BLOCK_IMAGES, C, H, W), or fewer in the last one."""
        self._check(f"{name}/0")  # which has the class's metadata
        self._check(f"{name}/{block}")
        return np.asarray(self._array(name, "latents")[block * BLOCK_IMAGES : (block + 1) * BLOCK_IMAGES])

    def read_blocks(self, name: str) -> Iterator[NDArray[np.float16]]:
        """The latents of a class block after block, one at a time in memory."""
        self._check(f"{name}/0")
        for block in range(len(block_names(name, self._array(name, "latents").shape[0]))):
            yield self.read_block(name, block)

    def read_some(self, name: str, images: NDArray[np.int64]) -> NDArray[np.float16]:
        """Latents (m, C, H, W) of some images (m,) of a class."""
        self._check(f"{name}/0")
        for block in sorted(set((images // BLOCK_IMAGES).tolist())):
            self._check(f"{name}/{block}")
        return np.asarray(self._array(name, "latents").oindex[images])

    def shape_of(self, name: str) -> tuple[int, ...]:
        """(C, H, W) of the latents of a class."""
        self._check(f"{name}/0")
        return tuple(self._array(name, "latents").shape[1:])

    def read_rows(self, name: str) -> NDArray[np.int64]:
        """Rows of the index (n,) that the class's latents were made from."""
        self._check(f"{name}/0")
        return np.asarray(self._array(name, "rows")[:])

    def _array(self, name: str, array: str) -> zarr.Array[Any]:
        return zarr.open_array(class_folder(self.path, name) / array, mode="r")


def _arrays_of(name: str, rows: NDArray[np.int64], shape: tuple[int, ...]) -> dict[str, Buffer]:
    """The files of a class, its rows written and its latents (n, *shape) not."""
    n, files = len(rows), dict[str, Buffer]()
    shard = -(-min(n, BLOCK_IMAGES) // CHUNK_IMAGES) * CHUNK_IMAGES
    group = zarr.open_group(MemoryStore(files), mode="w", attributes={"name": name})
    group.create_array("rows", data=rows, compressors=codec(), **_told(ROWS, 1))
    group.create_array(
        "latents",
        shape=(n, *shape),
        dtype="float16",
        chunks=(CHUNK_IMAGES, *shape),
        shards=(shard, *shape),
        compressors=codec(),
        fill_value=float("nan"),
        **_told(LATENTS, 1 + len(shape)),
    )
    return files


def _told(meaning: Meaning | None, num_axes: int) -> dict[str, Any]:
    """What `create_array` is told of an array's meaning, if it has one."""
    if meaning is None:
        return {}
    return {"dimension_names": meaning.axes[:num_axes], "attributes": {"long_name": meaning.long_name}}


def _holds(folder: Path, files: Mapping[str, Buffer]) -> bool:
    """Whether a folder's files are as they would be made: zarr takes a damaged one for one it knows."""
    try:
        return all((folder / name).read_bytes() == data.to_bytes() for name, data in files.items())
    except OSError:
        return False


class ClassStore:
    """`prototypes.zarr`, `images.zarr`: per class a few small arrays, written and replaced as one.

    check     is asked about each class that is read
    meanings  of the arrays, by their names
    """

    def __init__(self, path: Path, check: Check = _as_it_is, meanings: Meanings | None = None) -> None:
        self.path, self._check, self._meanings = path, check, meanings or {}

    def write_class(
        self,
        name: str,
        arrays: Mapping[str, NDArray[Any]],
        chunks: Mapping[str, tuple[int, ...]] | None = None,
        **attributes: Any,
    ) -> list[Path]:
        """Write the arrays of a class, each in chunks of this shape, else in one. Returns the folder they are in."""
        write_root(self.path)
        folder = class_folder(self.path, name)
        with whole_folder(folder, durable=False) as scratch:  # whoever commits the unit brings it to the disk
            files: dict[str, Buffer] = {}
            group = zarr.open_group(MemoryStore(files), mode="w", attributes={"name": name, **attributes})
            for key, value in arrays.items():
                shape = value.shape if chunks is None else chunks[key]
                told = _told(self._meanings.get(key), value.ndim)
                group.create_array(key, data=value, chunks=shape, compressors=codec(), **told)
            _write_out(files, scratch)
        return [folder]

    def read_class(self, name: str) -> dict[str, NDArray[Any]]:
        """All arrays of a class by name."""
        self._check(name)
        group = zarr.open_group(class_folder(self.path, name), mode="r")
        return {key: np.asarray(array[:]) for key, array in group.arrays()}

    def read_array(self, name: str, key: str) -> NDArray[Any]:
        """One array of a class."""
        return np.asarray(self._array(name, key)[:])

    def shape_of(self, name: str, key: str) -> tuple[int, ...]:
        """The shape of one array of a class."""
        return tuple(self._array(name, key).shape)

    def _array(self, name: str, key: str) -> zarr.Array[Any]:
        self._check(name)
        return zarr.open_array(class_folder(self.path, name) / key, mode="r")

    def open_class(self, name: str) -> dict[str, zarr.Array[Any]]:
        """The arrays of a class, of which `read_part` reads parts: their shapes and chunks, nothing they hold."""
        self._check(name, lambda file: file.endswith(f"/{ROOT}"))
        return dict(zarr.open_group(class_folder(self.path, name), mode="r").arrays())

    def read_part(self, name: str, array: zarr.Array[Any], part: tuple[slice, ...]) -> NDArray[Any]:
        """A part of an opened array, by slices of its first axes. The chunks that it lies in are checked and read."""
        whole = tuple(slice(0, size) for size in array.shape[len(part) :])
        chunks = [range(s.start // c, -(-s.stop // c)) for s, c in zip((*part, *whole), array.chunks, strict=True)]
        folder = f"{self.path.name}/{file_name(name)}/{array.basename}"
        files = {f"{folder}/{array.metadata.encode_chunk_key(at)}" for at in product(*chunks)}
        self._check(name, files.__contains__)
        return np.asarray(array[part])


def _write_out(files: Mapping[str, Buffer], folder: Path) -> None:
    """Write what zarr made in memory. On the disk it would give each file to another thread and wait for it, which for
    small ones takes longer than all else."""
    for at, content in files.items():
        (folder / at).parent.mkdir(parents=True, exist_ok=True)
        (folder / at).write_bytes(content.to_bytes())


def class_folder(store: Path, name: str) -> Path:
    """The folder of a class in a store."""
    return store / file_name(name)


def block_names(name: str, num_images: int) -> list[str]:
    """Units of a class's latents: "<class>/<block>"."""
    return [f"{name}/{block}" for block in range(-(-num_images // BLOCK_IMAGES))]


def unreadable_images(chunk_file: Path) -> str:
    """Which images of a damaged shard of latents cannot be read, as words; nothing for other files."""
    folder = next((p.parent for p in chunk_file.parents if p.name == "c"), None)
    if folder is None or folder.name != "latents" or not chunk_file.exists():
        return ""
    try:
        array = zarr.open_array(folder, mode="r")
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    block = int(chunk_file.relative_to(folder / "c").parts[0])
    end = min((block + 1) * BLOCK_IMAGES, array.shape[0])
    starts = range(block * BLOCK_IMAGES, end, CHUNK_IMAGES)
    return "".join(f", images {k} to {min(k + CHUNK_IMAGES, end) - 1}" for k in starts if not _reads(array, k))


def _reads(array: zarr.Array[Any], start: int) -> bool:
    try:
        array[start : start + CHUNK_IMAGES]
    except (OSError, ValueError, RuntimeError):
        return False
    return True
