"""Zarr stores with one group per pack of classes (storage/packs.py), readable by plain `zarr.open`.

In a pack's arrays the classes follow each other along the first axis. Its group names its `classes`, and each array has
their `sizes` there. A class that is a pack by itself has the group of its name.

Chunks are compressed with zstd and carry a checksum, and missing floats read as NaN. Arrays have named axes and say
what they hold, so that xarray opens a store as a tree; the metadata of a finished one is consolidated by its artifact
(storage/frame.py). One writer owns one shard: two would lose data silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from storage.files import whole_folder
from storage.frame import ROOT, write_root
from storage.names import file_name
from storage.packs import ALONE, BLOCK_IMAGES, Packs

CHUNK_IMAGES = 64  # images that are decompressed together
CHUNK_BYTES = 1 << 20  # of an array of several classes that is decompressed as a whole


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
    """`latents.zarr`: per pack `latents (n, C, H, W) float16` and `rows (n,) int64` of the index.

    check  is asked about each unit "<pack>/<block>" that is read
    """

    def __init__(self, path: Path, check: Check = _as_it_is, packs: Packs = ALONE) -> None:
        self.path, self._check, self._packs = path, check, packs

    def prepare_pack(self, pack: str, rows: Mapping[str, NDArray[np.int64]], shape: tuple[int, ...]) -> None:
        """Make the empty arrays of a pack, of whose classes these are the rows, before any of its latents. Those that
        are there to the last bit are kept; of others all blocks are gone too, as the metadata is a part of each."""
        folder = group_folder(self.path, pack)
        files = _arrays_of(pack, rows, shape)
        if folder.exists() and _holds(folder, files):
            return
        write_root(self.path)
        with whole_folder(folder, durable=False) as scratch:  # whoever commits the unit brings it to the disk
            _write_out(files, scratch)

    def write_block(self, pack: str, block: int, latents: NDArray[np.float16]) -> list[Path]:
        """Write one shard (at most BLOCK_IMAGES, C, H, W). Returns the files that make it up."""
        folder = group_folder(self.path, pack)
        array = zarr.open_array(folder / "latents", mode="r+")
        start = block * BLOCK_IMAGES
        expected = min(BLOCK_IMAGES, array.shape[0] - start)
        if latents.shape != (expected, *array.shape[1:]):
            raise ValueError(
                f"block {block} of {pack} takes {(expected, *array.shape[1:])}, got {latents.shape}: it must be "
                "written whole, by one writer"
            )
        chunk = folder / "latents" / "c" / "/".join([str(block)] + ["0"] * (array.ndim - 1))
        chunk.unlink(missing_ok=True)  # zarr would read a last shard that is there, damaged or not, to fill it up
        array[start : start + expected] = latents
        return [folder / "zarr.json", folder / "latents" / "zarr.json", folder / "rows", chunk]

    def read_class(self, name: str) -> NDArray[np.float16]:
        """Latents (n, C, H, W) of a class, in the order of `rows`."""
        array, own = self._open(name, "latents")
        pack, _ = self._packs.place(name)
        for unit in block_names(pack, array.shape[0])[1:]:
            self._check(unit)
        return np.asarray(array[own])

    def read_block(self, name: str, block: int) -> NDArray[np.float16]:
        """The latents of one block of a class, (BLOCK_IMAGES, C, H, W), or fewer in the last one."""
        array, own = self._open(name, "latents")
        self._check(f"{self._packs.place(name)[0]}/{block}")
        start = own.start + block * BLOCK_IMAGES
        return np.asarray(array[start : min(start + BLOCK_IMAGES, own.stop)])

    def read_blocks(self, name: str) -> Iterator[NDArray[np.float16]]:
        """The latents of a class block after block, one at a time in memory."""
        own = self._open(name, "latents")[1]
        for block in range(len(block_names(name, own.stop - own.start))):
            yield self.read_block(name, block)

    def read_some(self, name: str, images: NDArray[np.int64]) -> NDArray[np.float16]:
        """Latents (m, C, H, W) of some images (m,) of a class."""
        array, own = self._open(name, "latents")
        for block in sorted(set((images // BLOCK_IMAGES).tolist())):
            self._check(f"{self._packs.place(name)[0]}/{block}")
        return np.asarray(array.oindex[own.start + images])

    def shape_of(self, name: str) -> tuple[int, ...]:
        """(C, H, W) of the latents of a class."""
        return tuple(self._open(name, "latents")[0].shape[1:])

    def read_rows(self, name: str) -> NDArray[np.int64]:
        """Rows of the index (n,) that the class's latents were made from."""
        rows, own = self._open(name, "rows")
        return np.asarray(rows[own])

    def _open(self, name: str, key: str) -> tuple[zarr.Array[Any], slice]:
        """An array of the pack of a class, and where the class lies in it."""
        pack, k = self._packs.place(name)
        self._check(f"{pack}/0")  # which has the pack's metadata
        array = zarr.open_array(group_folder(self.path, pack) / key, mode="r")
        return array, _own(array, k)


def _arrays_of(pack: str, rows: Mapping[str, NDArray[np.int64]], shape: tuple[int, ...]) -> dict[str, Buffer]:
    """The files of a pack, its rows written and its latents (n, *shape) not."""
    sizes, files = [len(own) for own in rows.values()], dict[str, Buffer]()
    n = sum(sizes)
    shard = -(-min(n, BLOCK_IMAGES) // CHUNK_IMAGES) * CHUNK_IMAGES
    group = zarr.open_group(MemoryStore(files), mode="w", attributes={"name": pack, "classes": list(rows)})
    together = np.concatenate(list(rows.values()))
    group.create_array("rows", data=together, compressors=codec(), **_told(ROWS, 1, sizes))
    group.create_array(
        "latents",
        shape=(n, *shape),
        dtype="float16",
        chunks=(CHUNK_IMAGES, *shape),
        shards=(shard, *shape),
        compressors=codec(),
        fill_value=float("nan"),
        **_told(LATENTS, 1 + len(shape), sizes),
    )
    return files


def _told(meaning: Meaning | None, num_axes: int, sizes: Sequence[int] | None) -> dict[str, Any]:
    """What `create_array` is told of an array's meaning, if it has one, and of its classes."""
    attributes: dict[str, Any] = {} if sizes is None else {"sizes": list(sizes)}
    if meaning is None:
        return {"attributes": attributes}
    return {"dimension_names": meaning.axes[:num_axes], "attributes": {"long_name": meaning.long_name, **attributes}}


def _own(array: zarr.Array[Any], k: int) -> slice:
    """Where the k-th class of a pack lies along the first axis."""
    sizes = cast("list[int]", array.attrs.get("sizes", [array.shape[0]]))
    start = sum(sizes[:k])
    return slice(start, start + sizes[k])


def _holds(folder: Path, files: Mapping[str, Buffer]) -> bool:
    """Whether a folder's files are as they would be made: zarr takes a damaged one for one it knows."""
    try:
        return all((folder / name).read_bytes() == data.to_bytes() for name, data in files.items())
    except OSError:
        return False


class ClassStore:
    """`prototypes.zarr`, `images.zarr`: per class a few small arrays, those of a pack written and replaced as one.

    check     is asked about each pack that is read
    meanings  of the arrays, by their names
    """

    def __init__(
        self, path: Path, check: Check = _as_it_is, meanings: Meanings | None = None, packs: Packs = ALONE
    ) -> None:
        self.path, self._check, self._meanings, self._packs = path, check, meanings or {}, packs

    def write_pack(self, pack: str, classes: Mapping[str, Mapping[str, NDArray[Any]]], **attributes: Any) -> list[Path]:
        """Write the arrays of a pack's classes, all of the same names. Returns the folder they are in.

        Each is one file; a large one of several classes is cut into chunks of a class, so that one is read alone.
        """
        own = list(classes.values())
        sizes = {key: [len(arrays[key]) for arrays in own] for key in own[0]}
        joined = {key: np.concatenate([arrays[key] for arrays in own]) for key in sizes} if own[1:] else own[0]
        cuts: dict[str, dict[str, Any]] = {}
        for key, array in joined.items():
            longest, rest = max(sizes[key]), array.shape[1:]
            if array.nbytes > CHUNK_BYTES and longest < len(array):
                whole = -(-len(array) // longest) * longest
                cuts[key] = {"chunks": (longest, *rest), "shards": (whole, *rest)}
        return self._write(pack, joined, cuts, sizes, {"classes": list(classes), **attributes})

    def write_class(
        self,
        name: str,
        arrays: Mapping[str, NDArray[Any]],
        chunks: Mapping[str, tuple[int, ...]] | None = None,
        **attributes: Any,
    ) -> list[Path]:
        """Write the arrays of what has a group of its own, each in chunks of this shape, else in one. Returns the
        folder they are in."""
        cuts = {key: {"chunks": shape} for key, shape in (chunks or {}).items()}
        return self._write(name, arrays, cuts, {}, attributes)

    def _write(
        self,
        pack: str,
        arrays: Mapping[str, NDArray[Any]],
        cuts: Mapping[str, dict[str, Any]],
        sizes: Mapping[str, list[int]],
        attributes: dict[str, Any],
    ) -> list[Path]:
        write_root(self.path)
        folder = group_folder(self.path, pack)
        with whole_folder(folder, durable=False) as scratch:  # whoever commits the unit brings it to the disk
            files: dict[str, Buffer] = {}
            group = zarr.open_group(MemoryStore(files), mode="w", attributes={"name": pack, **attributes})
            for key, value in arrays.items():
                told = _told(self._meanings.get(key), value.ndim, sizes.get(key))
                cut = cuts.get(key, {"chunks": value.shape})
                group.create_array(key, data=value, compressors=codec(), **cut, **told)
            _write_out(files, scratch)
        return [folder]

    def read_class(self, name: str) -> dict[str, NDArray[Any]]:
        """All arrays of a class by name."""
        pack, k = self._packs.place(name)
        self._check(pack)
        group = zarr.open_group(group_folder(self.path, pack), mode="r")
        return {key: np.asarray(array[_own(array, k)]) for key, array in group.arrays()}

    def read_array(self, name: str, key: str) -> NDArray[Any]:
        """One array of a class."""
        array, own = self._open(name, key)
        return np.asarray(array[own])

    def shape_of(self, name: str, key: str) -> tuple[int, ...]:
        """The shape of one array of a class."""
        array, own = self._open(name, key)
        return (own.stop - own.start, *array.shape[1:])

    def _open(self, name: str, key: str) -> tuple[zarr.Array[Any], slice]:
        """An array of the pack of a class, and where the class lies in it."""
        pack, k = self._packs.place(name)
        self._check(pack)
        array = zarr.open_array(group_folder(self.path, pack) / key, mode="r")
        return array, _own(array, k)

    def open_class(self, name: str) -> dict[str, zarr.Array[Any]]:
        """The arrays of what has a group of its own, of which `read_part` reads parts: their shapes and chunks, nothing
        they hold."""
        self._check(name, lambda file: file.endswith(f"/{ROOT}"))
        return dict(zarr.open_group(group_folder(self.path, name), mode="r").arrays())

    def keys_of(self, name: str) -> set[str]:
        """The names of the arrays of a class."""
        return set(self.open_class(self._packs.place(name)[0]))

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


def group_folder(store: Path, pack: str) -> Path:
    """The folder of a pack in a store."""
    return store / file_name(pack)


def block_names(pack: str, num_images: int) -> list[str]:
    """Units of a pack's latents: "<pack>/<block>"."""
    return [f"{pack}/{block}" for block in range(-(-num_images // BLOCK_IMAGES))]


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
