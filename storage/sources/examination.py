"""One pass over the bytes of every image, in threads: its hash, whether it can be shown, whether it has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import pyarrow as pa

from storage.sources.base import Source, content_hash
from storage.sources.listing import REFUSED, Listing, Location, RefusedImage, SourceError, TableBuilder, locations

BATCH_IMAGES = 1024  # of which the hashes wait as Python objects, and after which progress is told
NUM_NAMED = 3


class Examined(NamedTuple):
    """The images that can be shown (schema IMAGES), the hash of each, and all that was refused (schema REFUSED)."""

    images: pa.Table
    hashes: pa.ChunkedArray
    refused: pa.Table


def examine(source: Source, listing: Listing, max_refused: float, tell: Callable[[int, int], None]) -> Examined:
    """Read every image, to its last pixel, on all cores that this process may use, and where images lie at addresses
    many at once.

    Raises SourceError as soon as more than a share `max_refused` of all is refused. `tell` gets (done, total).
    """
    images, total = listing.images, len(listing.images) + len(listing.refused)
    hashes, refused = [pa.array([], pa.string())], listing.refused
    with ThreadPoolExecutor(source.num_readers) as pool:
        for start in range(0, len(images), BATCH_IMAGES):
            batch = images.slice(start, BATCH_IMAGES)
            found = list(pool.map(lambda location: _examine_one(source, location), locations(batch)))
            hashes.append(pa.array([None if isinstance(f, RefusedImage) else f for f in found], pa.string()))
            refused = pa.concat_tables([refused, _refused(batch, found)])
            check_refused(refused, total, max_refused)
            tell(start + len(batch), len(images))
    column = pa.chunked_array(hashes)
    return Examined(images.filter(column.is_valid()), column.drop_null(), refused)


def changed_images(source: Source, images: pa.Table, tell: Callable[[int, int], None]) -> Iterator[RefusedImage]:
    """Read every image again on all cores, and yield those that are gone or have other bytes than when hashed.

    source  one that has read nothing yet, as open files show what was there when they were opened
    images  schema IMAGES and a column "hash", as an index's table has them
    """
    with ThreadPoolExecutor(source.num_readers) as pool:
        for start in range(0, len(images), BATCH_IMAGES):
            batch = images.slice(start, BATCH_IMAGES)
            compare = partial(_compare_one, source)
            yield from filter(None, pool.map(compare, locations(batch), batch["hash"].to_pylist()))
            tell(start + len(batch), len(images))


def _examine_one(source: Source, location: Location) -> str | RefusedImage:
    try:
        return source.hash_checked(location)
    except RefusedImage as error:
        return error


def _compare_one(source: Source, location: Location, known: str) -> RefusedImage | None:
    try:
        same = content_hash(source.read(location)) == known
    except RefusedImage as error:
        return error
    except SourceError as error:  # the whole file is damaged
        return RefusedImage(location.name, str(error))
    return None if same else RefusedImage(location.name, "other bytes than when it was indexed")


def _refused(batch: pa.Table, found: list[str | RefusedImage]) -> pa.Table:
    builder = TableBuilder(REFUSED)
    for row, error in enumerate(found):
        if isinstance(error, RefusedImage):
            builder.add(error.path, batch["class"][row].as_py(), batch["split"][row].as_py(), error.reason)
    return builder.finish()


def check_refused(refused: pa.Table, total: int, max_refused: float) -> None:
    """Raise SourceError if more than a share of all images is refused."""
    count = len(refused)
    if count <= max_refused * total:
        return
    named = "; ".join(f"{row['path']}: {row['reason']}" for row in refused.slice(0, NUM_NAMED).to_pylist())
    raise SourceError(
        f"{count} of {total} images cannot be shown, more than the share data.max_refused={max_refused}: {named}"
        f"{'; …' if count > NUM_NAMED else ''}. Repair or remove them, or raise data.max_refused"
    )
