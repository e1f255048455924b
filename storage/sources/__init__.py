"""Image sources: where the real images are, listed lazily and read by byte range. Knows no orchestration, no torch."""

from __future__ import annotations

from pathlib import Path

from storage.sources.archives import unpack
from storage.sources.base import ArraySource, Source, content_hash, stat_hash
from storage.sources.digits import DigitsSource
from storage.sources.examination import changed_images, check_refused, examine
from storage.sources.folder import FolderSource
from storage.sources.listing import WORDNET_ID, Listing, Location, RefusedImage, SourceError, class_order
from storage.sources.parquet import ParquetSource
from storage.sources.pictures import PILLOW_MAX_PIXELS
from storage.sources.remote import place_of
from storage.sources.subsets import subset_classes, take_subset
from storage.sources.tar import TarSource
from storage.sources.webdataset import WebDatasetSource


def open_source(
    kind: str,
    path: str | None = None,
    val_path: str | None = None,
    val_labels: str | None = None,
    *,
    unpacked: Path,
    max_pixels: int = PILLOW_MAX_PIXELS,
) -> Source:
    """The source of a kind: digits, folder, tar, webdataset or parquet.

    path, …     paths, of archives also addresses that fsspec opens
    unpacked    the folder in which gzipped archives are unpacked, and read; scans of archives are put beside it
    max_pixels  larger images are refused
    """
    if kind == "digits":
        return DigitsSource()
    if path is None:
        raise SourceError("data.path is not set: say where the images are, e.g. --set data.path=/data/imagenet")
    training, validation = place_of(path), place_of(val_path) if val_path else None
    labels = Path(val_labels) if val_labels else None
    match kind:
        case "folder":
            return FolderSource(training, validation, labels, max_pixels=max_pixels)
        case "tar":
            return TarSource(training, validation, labels, unpacked=unpacked, max_pixels=max_pixels)
        case "webdataset":
            return WebDatasetSource(training, validation, unpacked=unpacked, max_pixels=max_pixels)
        case "parquet":
            return ParquetSource(training, validation, scanned=unpacked.with_name("scanned"), max_pixels=max_pixels)
    raise ValueError(f"unknown kind of source {kind!r}")


__all__ = [
    "WORDNET_ID",
    "ArraySource",
    "DigitsSource",
    "FolderSource",
    "Listing",
    "Location",
    "ParquetSource",
    "RefusedImage",
    "Source",
    "SourceError",
    "TarSource",
    "WebDatasetSource",
    "changed_images",
    "check_refused",
    "class_order",
    "content_hash",
    "examine",
    "open_source",
    "stat_hash",
    "subset_classes",
    "take_subset",
    "unpack",
]
