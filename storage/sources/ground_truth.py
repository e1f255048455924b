"""ILSVRC's ground truth for its flat validation folder, in the forms that it is handed around in, and Tiny-ImageNet's.

The devkit numbers the classes 1 to 1000 in an order of its own, which is neither that of the WordNet ids nor that of
any trained network; its `meta.mat` says which number is which WordNet id.
"""

from __future__ import annotations

import csv
import io
import lzma
import reprlib
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from storage.sources.listing import WORDNET_ID, SourceError, one_line
from storage.sources.places import check_file, is_folder

TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
ANNOTATIONS = "val_annotations.txt"  # of Tiny-ImageNet
FORMS = (
    f"the devkit's folder, archive or {TRUTH}, Kaggle's LOC_val_solution.csv, Tiny-ImageNet's {ANNOTATIONS}, or a text "
    "file of WordNet ids"
)
MAX_BYTES = 256 << 20  # ILSVRC's own are a hundredth of it
_UNREADABLE = (
    OSError,
    EOFError,
    UnicodeDecodeError,
    LookupError,
    tarfile.TarError,
    csv.Error,
    zlib.error,
    lzma.LZMAError,
)


def class_names(labels: Path, image_names: list[str]) -> list[str]:
    """The WordNet id of each image; `image_names` are sorted, as labels without names follow that order.

    Raises SourceError for labels of another number, without an image's name, or in no known form.
    """
    try:
        for file in label_files(labels):
            check_file(file)
            _check_size(labels, file.stat().st_size)
        named = labels.suffix == ".csv" or labels.name == ANNOTATIONS
        found = _by_name(labels, image_names) if named else _in_order(labels)
    except _UNREADABLE as error:
        raise SourceError(f"data.val_labels={labels} cannot be read ({one_line(repr(error))}): give {FORMS}") from error
    for name in found:
        if not WORDNET_ID.fullmatch(name):
            raise SourceError(
                f"data.val_labels={labels} holds {reprlib.repr(name)}, which is no WordNet id: give {FORMS}"
            )
    if len(found) != len(image_names):
        raise SourceError(
            f"data.val_labels={labels} has {len(found)} labels for {len(image_names)} images: "
            "give the ground truth of just these images, or complete the images"
        )
    return found


def _check_size(labels: Path, num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise SourceError(f"data.val_labels={labels} holds {num_bytes:,} bytes, too many for labels: give {FORMS}")


def label_files(labels: Path) -> list[Path]:
    """The files that the class names are read from."""
    if not _is_devkit(labels):
        return [labels]
    folders = (labels, labels / "data") if is_folder(labels) else (labels.parent,)
    folder = next((folder for folder in folders if (folder / TRUTH).is_file()), labels)
    return [file for file in (folder / TRUTH, folder / META) if file.is_file()]


def _is_devkit(labels: Path) -> bool:
    return is_folder(labels) or labels.name == TRUTH


def _by_name(labels: Path, image_names: list[str]) -> list[str]:
    """Kaggle's table: ImageId, and a PredictionString that starts with the WordNet id. Tiny-ImageNet's: the file's name
    and the WordNet id, and a box."""
    with labels.open(newline="") as file:
        if labels.name == ANNOTATIONS:
            known = {PurePosixPath(row[0]).stem: row[1] for row in csv.reader(file, delimiter="\t") if row}
        else:
            rows = csv.DictReader(file, restval="")
            known = {row["ImageId"]: row["PredictionString"].partition(" ")[0] for row in rows}
    stems = [PurePosixPath(name).stem for name in image_names]
    absent = [stem for stem in stems if stem not in known]
    if absent:
        raise SourceError(
            f"data.val_labels={labels} has no label for {len(absent)} images, the first is {absent[0]}: "
            "complete the table, or take the images away"
        )
    return [known[stem] for stem in stems]


def _in_order(labels: Path) -> list[str]:
    if labels.name.endswith((".tar.gz", ".tgz", ".tar")):
        return _from_devkit(labels, _archived(labels))
    if _is_devkit(labels):
        return _from_devkit(labels, {file.name: file.read_bytes() for file in label_files(labels)})
    return labels.read_text().split()


def _archived(labels: Path) -> dict[str, bytes]:
    """The two files of a devkit's archive, in one pass that ends before it unpacks more than a devkit holds."""
    found = {}
    with tarfile.open(labels, "r|*") as devkit:
        for member in devkit:
            _check_size(labels, member.offset_data + member.size)
            name = PurePosixPath(member.name).name
            if name in (TRUTH, META) and member.isreg() and (file := devkit.extractfile(member)):
                found[name] = file.read()
    return found


def _from_devkit(labels: Path, files: dict[str, bytes]) -> list[str]:
    if absent := [name for name in (TRUTH, META) if name not in files]:
        raise SourceError(
            f"data.val_labels={labels} has no {absent[0]}, and its class numbers are not in the "
            f"order of WordNet ids, so both files are needed: give {FORMS}"
        )
    wordnet_ids = _wordnet_ids(labels, files[META])
    numbers = files[TRUTH].decode("ascii", "backslashreplace").split()
    for number in numbers:
        if number not in wordnet_ids:
            raise SourceError(
                f"data.val_labels={labels}: {TRUTH} holds {number[:40]}, which is no class of {META}: give {FORMS}"
            )
    return [wordnet_ids[number] for number in numbers]


def _wordnet_ids(labels: Path, meta: bytes) -> dict[str, str]:
    """ILSVRC2012_ID → WordNet id, of the classes; the synsets above them have children."""
    from scipy.io import loadmat

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        named = {str(int(s["ILSVRC2012_ID"])): str(s["WNID"]) for s in synsets if s["num_children"] == 0}
    except Exception as error:  # of damaged bytes it raises nearly anything, MemoryError included
        raise SourceError(
            f"data.val_labels={labels}: {META} cannot be read ({one_line(repr(error))}): give {FORMS}"
        ) from error
    return {number: name for number, name in named.items() if WORDNET_ID.fullmatch(name)}
