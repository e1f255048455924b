"""ILSVRC's ground truth for its flat validation folder, in the forms that it is handed around in.

The devkit numbers the classes 1 to 1000 in an order of its own, which is neither that of the WordNet ids nor that of
any trained network; its `meta.mat` says which number is which WordNet id.
"""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from storage.sources.listing import WORDNET_ID, SourceError

TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
FORMS = f"the devkit's folder, archive or {TRUTH}, Kaggle's LOC_val_solution.csv, or a text file of WordNet ids"


def class_names(labels: Path, image_names: list[str]) -> list[str]:
    """The WordNet id of each image; `image_names` are sorted, as labels without names follow that order.

    Raises SourceError for labels of another number, without an image's name, or in no known form.
    """
    try:
        if labels.suffix == ".csv":
            return _by_name(labels, image_names)
        found = _in_order(labels)
    except (OSError, tarfile.TarError, UnicodeDecodeError, LookupError) as error:
        raise SourceError(f"data.val_labels={labels} cannot be read ({error!r}): give {FORMS}") from error
    if len(found) != len(image_names):
        raise SourceError(
            f"data.val_labels={labels} has {len(found)} labels for {len(image_names)} images: "
            "give the ground truth of just these images, or complete the images"
        )
    return found


def label_files(labels: Path) -> list[Path]:
    """The files that the class names are read from."""
    if not _is_devkit(labels):
        return [labels]
    folders = (labels, labels / "data") if labels.is_dir() else (labels.parent,)
    folder = next((folder for folder in folders if (folder / TRUTH).is_file()), labels)
    return [file for file in (folder / TRUTH, folder / META) if file.is_file()]


def _is_devkit(labels: Path) -> bool:
    return labels.is_dir() or labels.name == TRUTH


def _by_name(labels: Path, image_names: list[str]) -> list[str]:
    """Kaggle's table: ImageId, and a PredictionString that starts with the WordNet id."""
    with labels.open(newline="") as file:
        known = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
    stems = [PurePosixPath(name).stem for name in image_names]
    absent = [stem for stem in stems if stem not in known]
    if absent:
        raise SourceError(f"data.val_labels={labels} has no label for {len(absent)} images, the first is {absent[0]}")
    return [known[stem] for stem in stems]


def _in_order(labels: Path) -> list[str]:
    if labels.name.endswith((".tar.gz", ".tgz", ".tar")):
        with tarfile.open(labels) as devkit:
            members = {PurePosixPath(name).name: name for name in devkit.getnames()}
            return _from_devkit(labels, lambda name: _member(devkit, members.get(name)))
    if _is_devkit(labels):
        files = {file.name: file for file in label_files(labels)}
        return _from_devkit(labels, lambda name: files[name].read_bytes() if name in files else None)
    found = labels.read_text().split()
    for name in found:
        if not WORDNET_ID.fullmatch(name):
            raise SourceError(f"data.val_labels={labels} holds {name!r}, which is no WordNet id: give {FORMS}")
    return found


def _member(devkit: tarfile.TarFile, name: str | None) -> bytes | None:
    file = devkit.extractfile(name) if name else None
    return file.read() if file else None


def _from_devkit(labels: Path, read: Callable[[str], bytes | None]) -> list[str]:
    truth, meta = read(TRUTH), read(META)
    if truth is None or meta is None:
        raise SourceError(
            f"data.val_labels={labels} has no {TRUTH if truth is None else META}, and its class numbers are not in the "
            f"order of WordNet ids, so both files are needed: give {FORMS}"
        )
    wordnet_ids = _wordnet_ids(meta)
    try:
        return [wordnet_ids[int(number)] for number in truth.split()]
    except (KeyError, ValueError) as error:
        raise SourceError(f"data.val_labels={labels}: {TRUTH} holds {error}, which is no class of {META}") from error


def _wordnet_ids(meta: bytes) -> dict[int, str]:
    """ILSVRC2012_ID → WordNet id."""
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    return {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets if WORDNET_ID.fullmatch(str(s["WNID"]))}
