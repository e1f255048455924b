"""Looking at artifacts without running anything: what they hold, whether it is whole, and dropping it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import zarr

from storage.artifact import Artifact, NotDone
from storage.errors import UserError
from storage.files import has_checksum, list_files
from storage.frame import MARKS, PLAN, RECORD, ROOT, damaged_frame, is_artifact, stores_of
from storage.index import Index
from storage.packs import packs_of
from storage.record import FileStamp, Mark, Record, damaged_files, load_mark, load_saved, mark_path
from storage.zarr_store import block_names, unreadable_images

SHOWN = 20  # lines of what may be a thousand
MOST_UNASKED = 3  # units that are forgotten without a question


class NoArtifact(UserError, ValueError):
    """A path is no artifact's folder."""


def artifact_folders(root: Path) -> list[Path]:
    """The artifact folders at or two levels below a path (`<root>/<stage>/<digest>`), each once."""
    root = root.resolve()
    if is_artifact(root):
        return [root]
    found = sorted(path for path in {p.resolve() for p in root.glob("*/*")} if is_artifact(path))
    if not found:
        raise NoArtifact(f"{root} holds no artifacts: give a run root like runs, or one like runs/digits/encode")
    return found


# --- describe ------------------------------------------------------------------------------------------


def describe(path: Path) -> str:
    """A page of text on one artifact. What is damaged is named, not shown."""
    artifact = _artifact(path)
    folder, marks = artifact.path, artifact.marks()
    stamps = {name: stamp for mark in marks.values() for name, stamp in mark.files.items()}
    record = load_saved(Record, folder / RECORD)
    lines = [f"{artifact}: " + ("complete" if record else f"not complete, {len(marks)} units so far")]
    made_from = {name: str(parent) for name, parent in artifact.parents.items()}
    lines += [f"settings: {artifact.config}", f"made from: {made_from}"]
    expected = list(record.units) if record else _expected_units(artifact)
    if expected:
        lines.append(f"units: {len(expected)}")
    if missing := [unit for unit in expected if unit not in marks]:
        lines.append("missing units: " + _few(missing, ", "))
    if record:
        facts = [f"{name} {value}" for name, value in record.facts.items() if isinstance(value, int | float | str)]
        lines += [f"facts: {', '.join(facts)}"] if facts else []
        lines += [f"seconds: {record.seconds}", f"versions: {record.versions}"]
    lines += _refused(folder, stamps)
    sizes = [file.stat().st_size for file in list_files(folder)]
    lines.append(f"size: {sum(sizes):,} bytes in {len(sizes)} files")
    packed = {name for mark in marks.values() for name in mark.facts.get("classes", [])}
    return "\n".join(lines + [line for store in stores_of(folder) for line in _tree(store, stamps, len(packed))])


def _refused(folder: Path, stamps: dict[str, FileStamp]) -> list[str]:
    """The first of the images that were refused, of an artifact that lists them."""
    name = "index/refused.parquet"
    if name not in stamps:
        return []
    if not stamps[name].is_read_from(folder / name):
        return [f"damaged: {name}: run the recipe again"]
    images = pq.read_table(folder / name).slice(0, SHOWN).to_pylist()
    return [f"refused: {image['path']}: {image['reason']}" for image in images]


def _tree(store: Path, stamps: dict[str, FileStamp], num_packed: int) -> list[str]:
    """A zarr store's groups, each of a class or of a pack of such, with their arrays; what cut-off writes left is not
    shown."""
    names = sorted(p.name for p in store.iterdir() if p.is_dir() and not p.name.endswith(".partial"))
    packed = num_packed > len(names)
    lines = [f"{store.name}: {f'{num_packed} classes in {len(names)} groups' if packed else f'{len(names)} classes'}"]
    lines += [f"  {name}: {_arrays(store / name, stamps)}" for name in names[:SHOWN]]
    return lines + ([f"  and {len(names) - SHOWN} more"] if len(names) > SHOWN else [])


def _arrays(group: Path, stamps: dict[str, FileStamp]) -> str:
    """The arrays of a class; their metadata are compared with the marks, their chunks are not read."""
    at = f"{group.parent.name}/{group.name}/"
    known = {name: stamp for name, stamp in stamps.items() if name.startswith(at) and name.endswith(f"/{ROOT}")}
    bad = [name for name, stamp in known.items() if not stamp.is_read_from(group.parents[1] / name)]
    if bad:
        return f"damaged: {bad[0]}: run the recipe again"
    try:
        arrays = sorted(zarr.open_group(group, mode="r").arrays())
    except (OSError, ValueError, KeyError, TypeError):
        return "not readable, and no unit's"
    return ", ".join(f"{key} {array.shape} {array.dtype}" for key, array in arrays)


def _few(names: list[str], separator: str) -> str:
    more = len(names) - SHOWN
    return separator.join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _expected_units(artifact: Artifact) -> list[str]:
    """Units of an artifact that is not complete, from the index it goes back to; none where they are not by class."""
    shard = next((a for a in artifact.ancestors() if a.stage == "shard"), None)
    if (
        artifact.stage not in ("encode", "cluster", "decode")
        or shard is None
        or not (shard.is_done() and shard.reads_back("index"))
    ):
        return []
    counts = Index.read(shard.path / "index").counts("train")
    totals = packs_of(artifact, counts).totals(counts)
    return [u for pack, n in totals.items() for u in (block_names(pack, n) if artifact.stage == "encode" else [pack])]


# --- verify --------------------------------------------------------------------------------------------


def verify_folder(folder: Path) -> list[str]:
    """Read every file of an artifact. Returns a line for each that is damaged or missing.

    Of units with damaged files the marks are dropped, as size and time may not tell; nothing else is touched.
    """
    name, record = f"{folder.parent.name}/{folder.name}", load_saved(Record, folder / RECORD)
    frame = [f"file {file}" for file in damaged_frame(folder, record.roots if record else None)]
    lines = []
    if record is None:
        there = (folder / RECORD).exists()
        lines.append(f"damaged: {name}, file {RECORD}" if there else f"not complete: {name} has no {RECORD}")
    held = {}
    for path in _marks_of(folder):
        mark = load_mark(folder, path)
        if mark is None:
            unit = path.relative_to(folder / MARKS).with_suffix("").as_posix()
            lines.append(f"damaged: {name}, unit {unit}, file {path.relative_to(folder).as_posix()}")
            held[path] = ""
        else:
            lines += [f"damaged: {name}, unit {mark.unit}, file {line}" for line in _verify_unit(folder, mark)]
            held[path] = mark.content
    told = tuple(line.rpartition(", ")[2] for line in lines)  # a store's root that is a unit's too
    lines = [f"damaged: {name}, {file}" for file in frame if file not in told] + lines
    return lines + list(_unlike(folder, name, record, held))


def _verify_unit(folder: Path, mark: Mark) -> list[str]:
    bad = damaged_files(folder, mark, deep=True)
    lines = [f"{file}{unreadable_images(folder / file)}" for file in bad]
    if bad:
        mark_path(folder, mark.unit).unlink(missing_ok=True)
    return lines


def _unlike(folder: Path, name: str, record: Record | None, held: dict[Path, str]) -> Iterator[str]:
    """Lines on units that are not as the record says, by the contents of the marks that were found, "" if damaged."""
    for unit, content in (record.units if record else {}).items():
        path = mark_path(folder, unit)
        if path not in held:
            yield f"missing: {name}, unit {unit}, file {path.relative_to(folder).as_posix()}"
        elif held[path] not in ("", content):
            yield f"not complete: {name}, unit {unit} was made again after {RECORD}"


def unchecked_files(folder: Path) -> int:
    """How many of an artifact's plan, marks and record were written before these carried a checksum."""
    files = [path for path in (folder / PLAN, folder / RECORD, *_marks_of(folder)) if path.exists()]
    return sum(not _has_checksum(path) for path in files)


def _has_checksum(path: Path) -> bool:
    try:
        return has_checksum(path)
    except (OSError, ValueError):
        return True  # damaged, which is told


def _marks_of(folder: Path) -> list[Path]:
    return [path for path in list_files(folder / MARKS) if path.suffix == ".json"]


# --- forget --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forgetting:
    """What is to be dropped: units of an artifact, or with none named all of it."""

    artifact: Artifact
    units: tuple[str, ...]

    @property
    def is_much(self) -> bool:
        """Whether it is to be asked about."""
        return not self.units or len(self.units) > MOST_UNASKED

    def __str__(self) -> str:
        folder, marks = self.artifact.path, self.artifact.marks()
        names = {name for unit in self.units for name in marks[unit].files}
        files = [folder / name for name in names] if self.units else list_files(folder)
        num_bytes = sum(file.stat().st_size for file in files if file.exists())
        what = f"{len(self.units)} of {len(marks)} units" if self.units else f"all of it, {len(marks)} units"
        return f"{self.artifact}: {what}, {num_bytes:,} bytes"

    def carry_out(self) -> list[str]:
        """Drop it, so that the next run makes it anew. Returns a line for each unit, or for the whole."""
        if not self.units:
            self.artifact.forget()
            return [f"forgotten: {self.artifact}"]
        for unit in self.units:
            self.artifact.forget(unit)
        return [f"forgotten: {self.artifact}, unit {unit}" for unit in self.units]


def forgetting(path: Path, units: list[str]) -> Forgetting:
    """What dropping these units of an artifact's folder, or those with classes of these names, would drop; or all where
    none is named. Raises NoArtifact."""
    artifact = _artifact(path)
    known = artifact.marks() if units else {}
    found: dict[str, None] = {}
    for name in units:
        of_class = [unit for unit, mark in known.items() if name in mark.facts.get("classes", ())]
        own = [name] if name in known else of_class
        if not own:
            raise NoArtifact(f"{path} has no unit {name!r}: it has {', '.join(known) or 'none'}")
        found |= dict.fromkeys(own)
    return Forgetting(artifact, tuple(found))


def _artifact(path: Path) -> Artifact:
    try:
        return Artifact.open(path)
    except NotDone as error:
        raise NoArtifact(str(error)) from error
