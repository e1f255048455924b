"""The files that a setting names: one file, a folder of them, a pattern, or a range of shards."""

from __future__ import annotations

import glob
import math
import re
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage.sources.listing import SourceError
from storage.sources.remote import NUM_READERS, Address

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MAX_RANGE = 1_000_000  # files
OTHER_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def named_files(path: Path | Address, suffixes: tuple[str, ...]) -> Sequence[Path | Address]:
    """The files of a place in one order; of a folder those with the suffixes. Raises SourceError for none, or a gap,
    and for what is no file: to open a fifo could take for ever."""
    try:
        found = _found_at(path, suffixes) if isinstance(path, Address) else _found(path, suffixes)
    except OSError as error:
        raise SourceError(f"{path} cannot be looked at ({error.strerror}): check the path") from error
    if not found:
        raise SourceError(
            f"no {' '.join(suffixes)} files at {path}: give a file, a folder of such files, a pattern like "
            f"images-*{suffixes[0]}, or a range like images-{{000..146}}{suffixes[0]}"
        )
    for file in found:
        state_of(file)
    return found


def _found_at(path: Address, suffixes: tuple[str, ...]) -> list[Address]:
    """Of an address, what `_found` finds of a path; all are asked for their state, many at once."""
    path.look_anew()
    found = [Address(name) for name in _expanded(str(path))]
    if len(found) == 1:
        found = [file for file in found[0].found(suffixes) if file in found or _fits(file.name, suffixes)]
    with ThreadPoolExecutor(NUM_READERS) as pool:
        list(pool.map(state_of, found))
    return found


def _found(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if _fits(file.name, suffixes))
    if path.exists():
        return [path]
    if not RANGE.search(str(path)):
        return sorted(Path(name) for name in glob.glob(str(path)) if _fits(name, suffixes))  # noqa: PTH207
    found = [Path(name) for name in _expanded(str(path))]
    absent = [file for file in found if not file.exists()]
    if absent:
        raise SourceError(f"{len(absent)} of {len(found)} files of {path} are missing, the first is {absent[0]}")
    return found


def check_file(path: Path) -> None:
    """Raise SourceError for a path that cannot be looked at, or is no file."""
    try:
        other = other_kind(path.stat().st_mode)
    except (OSError, ValueError) as error:  # of a name with a NUL it is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"{path} cannot be looked at ({reason}): check the path") from error
    if other:
        raise SourceError(f"{path} is {other}, not a file: move it away, or give another path")


def state_of(file: Path | Address) -> tuple[int, int | str]:
    """Bytes, and what changes when a file is written anew. Raises SourceError for one that is not there, or is none."""
    if isinstance(file, Address):
        return file.state
    check_file(file)
    return (at := file.stat()).st_size, at.st_mtime_ns


def is_folder(path: Path) -> bool:
    """Whether there is a folder; one that cannot be looked at is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def other_kind(mode: int) -> str:
    """What something is that is no file; "" for a file."""
    return "" if stat.S_ISREG(mode) else OTHER_KINDS.get(stat.S_IFMT(mode), "something else")


def _fits(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes) and not Path(name).name.startswith(".")


def _expanded(pattern: str) -> list[str]:
    count = math.prod(max(int(last) - int(first) + 1, 0) for first, last in RANGE.findall(pattern))
    if count > MAX_RANGE:
        raise SourceError(f"{pattern} means {count} files, more than {MAX_RANGE}: check the range")
    return _expand(pattern)


def _expand(pattern: str) -> list[str]:
    """ "a-{08..10}" → a-08, a-09, a-10; several ranges in one pattern give every combination."""
    match = RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = [f"{k:0{len(first)}d}" for k in range(int(first), int(last) + 1)]
    return [name for number in numbers for name in _expand(pattern[: match.start()] + number + pattern[match.end() :])]
