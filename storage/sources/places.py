"""The files that a setting names: one file, a folder of them, a pattern, or a range of shards."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from storage.sources.listing import SourceError

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def named_files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a place in one order; of a folder those with the suffixes. Raises SourceError for none, or a gap."""
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if _fits(file.name, suffixes))
    elif path.exists():
        found = [path]
    elif RANGE.search(str(path)):
        found = [Path(name) for name in _expand(str(path))]
        absent = [file for file in found if not file.is_file()]
        if absent:
            raise SourceError(f"{len(absent)} of {len(found)} files of {path} are missing, the first is {absent[0]}")
    else:
        found = sorted(Path(name) for name in glob.glob(str(path)) if _fits(name, suffixes))  # noqa: PTH207
    if not found:
        raise SourceError(
            f"no {' '.join(suffixes)} files at {path}: give a file, a folder of such files, a pattern like "
            f"images-*{suffixes[0]}, or a range like images-{{000..146}}{suffixes[0]}"
        )
    return found


def _fits(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes) and not Path(name).name.startswith(".")


def _expand(pattern: str) -> list[str]:
    """ "a-{08..10}" → a-08, a-09, a-10; several ranges in one pattern give every combination."""
    match = RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = [f"{k:0{len(first)}d}" for k in range(int(first), int(last) + 1)]
    return [name for number in numbers for name in _expand(pattern[: match.start()] + number + pattern[match.end() :])]
