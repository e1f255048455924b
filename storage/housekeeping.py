"""What lies on a run root: artifacts by stage, who works on them, and those that no recipe's links lead to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.artifact import Artifact, Damaged, NotDone
from storage.errors import UserError
from storage.files import list_files
from storage.frame import DIGEST, RECORD, is_artifact
from storage.inspection import NoArtifact
from storage.lease import Holder, holders


@dataclass(frozen=True)
class Stage:
    """The artifacts of a stage: how many are complete, how many are not, and their bytes on disk."""

    name: str
    complete: int
    begun: int
    num_bytes: int


def stages(root: Path) -> list[Stage]:
    """The stages of a root, by name. Raises NoArtifact for a folder that holds no artifacts."""
    found: dict[str, list[Path]] = {}
    for folder in _folders(root):
        found.setdefault(folder.parent.name, []).append(folder)
    return [_stage(name, folders) for name, folders in sorted(found.items())]


def _stage(name: str, folders: list[Path]) -> Stage:
    complete = sum((folder / RECORD).exists() for folder in folders)
    return Stage(name, complete, len(folders) - complete, sum(map(size_of, folders)))


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in list_files(folder))


def leases(root: Path) -> Iterator[tuple[str, Holder]]:
    """What is in work just now, as "<stage>/<digest>", and by whom."""
    for folder in sorted(path.parent for path in root.glob("*/*/leases")):
        for holder in holders(folder):
            yield f"{folder.parent.name}/{folder.name}", holder


def runs(root: Path) -> list[Path]:
    """The folders `<root>/<recipe>` in which runs have left links."""
    return sorted(path for path in root.iterdir() if any(link.is_symlink() for link in _entries(path)))


class AtWork(UserError, RuntimeError):
    """A run works on the root."""


def unreachable(root: Path, hours: float) -> list[tuple[int, Path]]:
    """Bytes and folders of artifacts that no recipe's links lead to, nor what those were made from, the largest first;
    only what has not grown for so many hours.

    A run that has not ended has no links yet: raises AtWork while there is one. A view of a data set that is reached is
    kept too: it is made of that alone, and is no parent of what reads it.
    """
    root, kept = root.resolve(), set[Path]()
    for link in (link for run in runs(root) for link in _entries(run) if link.is_symlink()):
        try:
            artifact = Artifact.open(link)
        except (NotDone, Damaged):
            continue
        kept |= {artifact.path, *(other.path for other in artifact.ancestors())}
    left = [
        folder
        for folder in _folders(root)
        if folder not in kept and folder.stat().st_mtime < time.time() - 3600 * hours and not _is_view_of(folder, kept)
    ]
    if in_work := next(leases(root), None):
        name, holder = in_work
        raise AtWork(f"process {holder.pid} on {holder.host} works on {name}: wait for the end of its run, or end it")
    return sorted(((size_of(folder), folder) for folder in left), reverse=True)


def _is_view_of(folder: Path, kept: set[Path]) -> bool:
    if folder.parent.name != "view" or not is_artifact(folder):
        return False
    return any(parent.path in kept for parent in Artifact.open(folder).parents.values())


def _folders(root: Path) -> list[Path]:
    """The folders `<root>/<stage>/<digest>`, also those in which a training was cut off before it left a plan."""
    found = [path for path in root.glob("*/*") if DIGEST.fullmatch(path.name) and not path.is_symlink()]
    if not found:
        raise NoArtifact(f"{root} holds no artifacts: give a run root like runs")
    return sorted(found)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
