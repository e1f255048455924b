"""Leases: of two runs on one root, one makes a unit and the other waits for it.

A lease is a file beside the artifact's marks that its holder keeps locked. The lock is the kernel's (flock, which goes
through NFS), so it ends with its holder, also by `kill -9` or with its machine: nothing has to be cleared away, and
what the dead one had in work is taken over at once. The file says who holds it, since when.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel

from storage.artifact import Artifact
from storage.files import list_files, sha256_of

LEASES = "leases"
WHOLE = ""  # the unit of what is made as a whole
POLL_SECONDS = 0.5
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

Portion = TypeVar("Portion", bound=Sequence[str])


@contextmanager
def leased(artifact: Artifact, units: Sequence[str]) -> Iterator[bool]:
    """Whether these units are ours for the block: all of them, or none where another holds one."""
    held: list[tuple[Path, IO[str]]] = []
    try:
        for unit in units:
            path = artifact.path / LEASES / f"{sha256_of(unit)[:12]}.json"
            file = _locked(path)
            if file is None:
                break
            held.append((path, file))
            file.truncate(0)
            file.write(_me(unit).model_dump_json())
            file.flush()
        yield len(held) == len(units)
    finally:
        for path, file in held:
            path.unlink(missing_ok=True)  # while it is locked still
            file.close()


@contextmanager
def leased_whole(artifact: Artifact) -> Iterator[None]:
    """Wait until nobody else makes this artifact, and let nobody do so during the block."""
    while True:
        with leased(artifact, [WHOLE]) as ours:
            if ours:
                yield
                return
        time.sleep(POLL_SECONDS)


def to_make(
    artifact: Artifact, wanted: Mapping[str, str], portions: Sequence[Portion]
) -> Iterator[tuple[Portion, list[str]]]:
    """Portions of units, with those of them (name → hash of inputs) that are to be made here, ours until the next
    portion is asked for.

    What another process has in work comes last, where it has not been made by then.
    """
    waiting = list(portions)
    while waiting:
        left = []
        for portion in waiting:
            if not artifact.missing({unit: wanted[unit] for unit in portion}):
                continue
            with leased(artifact, portion) as ours:
                if not ours:
                    left.append(portion)
                elif missing := artifact.missing({unit: wanted[unit] for unit in portion}):
                    yield portion, missing
        if left and left == waiting:
            time.sleep(POLL_SECONDS)
        waiting = left


class Holder(BaseModel):
    """Who has a unit in work; since when, in seconds since 1970."""

    unit: str
    host: str
    pid: int
    since: float


def holders(folder: Path) -> list[Holder]:
    """Who makes what of an artifact's folder."""
    found = []
    for path in list_files(folder / LEASES):
        with suppress(OSError, ValueError), path.open("r+") as file:
            if not _lock(file):
                found.append(Holder.model_validate_json(file.read()))
    return found


def alone(path: Path) -> IO[str]:
    """Wait for the lock of this file, which is made and stays; it is ours until what is returned is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    _lock(file, wait=True)
    return file


def _me(unit: str) -> Holder:
    return Holder(unit=unit, host=socket.gethostname(), pid=os.getpid(), since=time.time())


def _locked(path: Path) -> IO[str] | None:
    """The lease's file, locked by us; None where another has it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
        if not _lock(file):
            file.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its holder has just taken it away


def _lock(file: IO[str], *, wait: bool = False) -> bool:
    """Whether the file is locked by us now; always, on a file system that has no locks: runs there do not see each
    other, and what two of them make twice is the same."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True
