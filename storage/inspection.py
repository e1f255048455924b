"""Looking at artifacts without running anything: what they hold, whether it is whole, and dropping it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import zarr

from storage.artifact import Artifact, NotDone
from storage.errors import UserError
from storage.files import list_files
from storage.index import Index
from storage.record import Mark, Record, damaged_files, load_saved
from storage.zarr_store import block_names, unreadable_images

SHOWN = 20  # lines of what may be a thousand


class NoArtifact(UserError, ValueError):
    """A path is no artifact's folder."""


def artifact_folders(root: Path) -> list[Path]:
    """The artifact folders at or two levels below a path (`<root>/<stage>/<digest>`), each once."""
    root = root.resolve()
    if _is_artifact(root):
        return [root]
    found = sorted({p.resolve() for p in root.glob("*/*") if _is_artifact(p)})
    if not found:
        raise NoArtifact(f"{root} holds no artifacts: give a run root like runs, or one like runs/digits/encode")
    return found


def describe(path: Path) -> str:
    """A page of text on one artifact."""
    artifact = _artifact(path)
    folder, marks = artifact.path, artifact.marks()
    record = load_saved(Record, folder / "record.json")
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
    refused = folder / "index" / "refused.parquet"
    if refused.exists():
        lines += [
            f"refused: {image['path']}: {image['reason']}" for image in pq.read_table(refused).to_pylist()[:SHOWN]
        ]
    sizes = [file.stat().st_size for file in list_files(folder)]
    lines.append(f"size: {sum(sizes):,} bytes in {len(sizes)} files")
    return "\n".join(lines + [line for store in sorted(folder.glob("*.zarr")) for line in _tree(store)])


def _tree(store: Path) -> list[str]:
    """A zarr store's classes with their arrays; what cut-off writes left is not shown."""
    names = sorted(p.name for p in store.iterdir() if p.is_dir() and not p.name.endswith(".partial"))
    lines = [f"{store.name}: {len(names)} classes"]
    for name in names[:SHOWN]:
        arrays = sorted(zarr.open_group(store / name, mode="r").arrays())
        lines.append(f"  {name}: " + ", ".join(f"{key} {array.shape} {array.dtype}" for key, array in arrays))
    return lines + ([f"  and {len(names) - SHOWN} more"] if len(names) > SHOWN else [])


def _few(names: list[str], separator: str) -> str:
    more = len(names) - SHOWN
    return separator.join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _expected_units(artifact: Artifact) -> list[str]:
    """Units of an artifact that is not complete, from the index it goes back to; none where they are not by class."""
    shard = next((a for a in artifact.ancestors() if a.stage == "shard"), None)
    if artifact.stage not in ("encode", "cluster", "decode") or shard is None or not shard.is_done():
        return []
    counts = Index.read(shard.path / "index").counts("train")
    return [u for name, n in counts.items() for u in (block_names(name, n) if artifact.stage == "encode" else [name])]


def verify_folder(folder: Path) -> list[str]:
    """Read every file of an artifact; drop the marks of damaged units. Returns a line per damaged file."""
    name, lines, marked = f"{folder.parent.name}/{folder.name}", [], set()
    record_path = folder / "record.json"
    record = load_saved(Record, record_path)
    if record is None and record_path.exists():
        lines.append(f"damaged: {name}, file record.json")
        record_path.unlink()
    for path in list_files(folder / "marks"):
        mark = load_saved(Mark, path)
        unit = mark.unit if mark else path.relative_to(folder / "marks").with_suffix("").as_posix()
        bad = [path.relative_to(folder).as_posix()] if mark is None else damaged_files(folder, mark, deep=True)
        lines += [f"damaged: {name}, unit {unit}, file {file}{unreadable_images(folder / file)}" for file in bad]
        marked.add(unit)
        if bad:
            path.unlink(missing_ok=True)
    return lines + [f"missing: {name}, unit {unit}" for unit in (record.units if record else []) if unit not in marked]


def forget_units(path: Path, units: list[str]) -> list[str]:
    """Drop units, or the whole artifact where none is named. Returns a line for each."""
    artifact = _artifact(path)
    if not units:
        artifact.forget()
        return [f"forgotten: {artifact}"]
    known = artifact.marks()
    unknown = [unit for unit in units if unit not in known]
    if unknown:
        raise NoArtifact(f"{path} has no unit {unknown[0]!r}: it has {', '.join(known) or 'none'}")
    for unit in units:
        artifact.forget(unit)
    return [f"forgotten: {artifact}, unit {unit}" for unit in units]


def _artifact(path: Path) -> Artifact:
    try:
        return Artifact.open(path)
    except NotDone as error:
        raise NoArtifact(str(error)) from error


def _is_artifact(path: Path) -> bool:
    return (path / "marks").is_dir()
