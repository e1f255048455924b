"""Looking at artifacts without running anything: what they hold, whether it is whole, and dropping it."""

from __future__ import annotations

import shutil
from pathlib import Path

import zarr

from storage.artifact import Mark, Record
from storage.files import list_files


class NoArtifact(ValueError):
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
    folder = _artifact(path)
    record = _record(folder)
    marks = _marks(folder)
    lines = [
        f"{folder.parent.name}/{folder.name}: " + ("complete" if record else f"not complete, {len(marks)} units so far")
    ]
    if record:
        missing = [unit for unit in record.units if unit not in marks]
        lines += [f"settings: {record.config}", f"made from: {record.parents}", f"units: {len(record.units)}"]
        lines += [f"missing units: {', '.join(missing)}"] if missing else []
        lines += [f"seconds: {record.seconds}", f"versions: {record.versions}"]
    sizes = [file.stat().st_size for file in list_files(folder)]
    lines.append(f"size: {sum(sizes):,} bytes in {len(sizes)} files")
    for store in sorted(folder.glob("*.zarr")):
        lines.append(f"{store.name}:")
        for name, group in sorted(zarr.open_group(store, mode="r").groups()):
            lines.append(f"  {name}: " + ", ".join(f"{k} {a.shape} {a.dtype}" for k, a in sorted(group.arrays())))
    return "\n".join(lines)


def verify_folder(folder: Path) -> list[str]:
    """Read every file of an artifact's units; drop the marks of damaged ones. Returns a line per damaged file."""
    lines = []
    for unit, mark in _marks(folder).items():
        bad = [name for name, stamp in mark.files.items() if not stamp.holds(folder / name, deep=True)]
        lines += [f"damaged: {folder.parent.name}/{folder.name}, unit {unit}, file {name}" for name in bad]
        if bad:
            _mark_path(folder, unit).unlink(missing_ok=True)
    return lines


def forget_units(path: Path, units: list[str]) -> list[str]:
    """Drop units, or the whole artifact where none is named. Returns a line for each."""
    folder = _artifact(path)
    if not units:
        shutil.rmtree(folder)
        return [f"forgotten: {folder.parent.name}/{folder.name}"]
    marks = _marks(folder)
    unknown = [unit for unit in units if unit not in marks]
    if unknown:
        raise NoArtifact(f"{path} has no unit {unknown[0]!r}: it has {', '.join(marks) or 'none'}")
    for unit in units:
        _mark_path(folder, unit).unlink()
        for name in marks[unit].files:
            (folder / name).unlink(missing_ok=True)
    return [f"forgotten: {folder.parent.name}/{folder.name}, unit {unit}" for unit in units]


def _artifact(path: Path) -> Path:
    if not _is_artifact(path):
        raise NoArtifact(f"{path} is no artifact's folder: give one like runs/digits/encode")
    return path.resolve()


def _is_artifact(path: Path) -> bool:
    return (path / "marks").is_dir()


def _record(folder: Path) -> Record | None:
    path = folder / "record.json"
    return Record.model_validate_json(path.read_bytes()) if path.exists() else None


def _marks(folder: Path) -> dict[str, Mark]:
    files = list_files(folder / "marks")
    marks = [Mark.model_validate_json(file.read_bytes()) for file in files]
    return {mark.unit: mark for mark in marks}


def _mark_path(folder: Path, unit: str) -> Path:
    return folder / "marks" / f"{unit}.json"
