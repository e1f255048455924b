"""Looking at artifacts without running anything: what they hold, whether it is whole, and dropping it."""

from __future__ import annotations

import shutil
from pathlib import Path

import zarr

from storage.artifact import Mark, Record, damaged_files, load_saved
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
    record = load_saved(Record, folder / "record.json")
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
            if name.endswith(".partial"):  # a write was cut off
                continue
            lines.append(f"  {name}: " + ", ".join(f"{k} {a.shape} {a.dtype}" for k, a in sorted(group.arrays())))
    return "\n".join(lines)


def verify_folder(folder: Path) -> list[str]:
    """Read every file of an artifact; drop the marks of damaged units. Returns a line per damaged file."""
    name, lines, marked = f"{folder.parent.name}/{folder.name}", [], set()
    record_path = folder / "record.json"
    record = load_saved(Record, record_path)
    if record is None and record_path.exists():
        lines.append(f"damaged: {name}, file record.json")
        record_path.unlink()
    for path in list_files(folder / "marks"):
        unit, mark = _unit_of(folder, path), load_saved(Mark, path)
        bad = [f"marks/{unit}.json"] if mark is None else damaged_files(folder, mark, deep=True)
        lines += [f"damaged: {name}, unit {unit}, file {file}" for file in bad]
        marked.add(unit)
        if bad:
            path.unlink(missing_ok=True)
    return lines + [f"missing: {name}, unit {unit}" for unit in (record.units if record else []) if unit not in marked]


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


def _marks(folder: Path) -> dict[str, Mark]:
    marks = {_unit_of(folder, path): load_saved(Mark, path) for path in list_files(folder / "marks")}
    return {unit: mark for unit, mark in marks.items() if mark}


def _unit_of(folder: Path, mark_path: Path) -> str:
    return mark_path.relative_to(folder / "marks").with_suffix("").as_posix()


def _mark_path(folder: Path, unit: str) -> Path:
    return folder / "marks" / f"{unit}.json"
