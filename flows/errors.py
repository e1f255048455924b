"""How an error is told: one line for what the user can mend, and for a bug where its traceback lies.

Exit codes: 2 before the run, 1 in it, 70 for a bug, 130 and 143 for a signal.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import NoReturn

from rich.console import Console
from rich.text import Text

from storage.errors import UserError, first_line

INTERRUPTED, TERMINATED, BUG = 130, 128 + SIGTERM, 70  # the last is EX_SOFTWARE of sysexits.h
GO_ON = "run the same command again to go on"
DEBUG = "DDOQ_DEBUG"
LOGS = ".logs"
ERRNOS = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "give another place",
    errno.ENAMETOOLONG: "give another place",
    errno.EIO: "check the disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
OS_ERROR = re.compile(r"\(os error (\d{1,4})\)$")


class RunFailed(RuntimeError):
    """A stage failed; the cause is what it raised, in whichever process."""


class Terminated(SystemExit):
    """SIGTERM came."""


@contextmanager
def clear_errors(root: Path | None = None) -> Iterator[None]:
    """Tell what is raised in the block, and exit. A bug's traceback is written below the root, if there is one."""
    try:
        yield
    except KeyboardInterrupt:
        _exit(f"interrupted: {GO_ON}", INTERRUPTED)
    except Terminated:
        _exit(f"terminated: {GO_ON}", TERMINATED)
    except Exception as error:
        if debugging():
            traceback.print_exception(error)
        cause = error.__cause__ if isinstance(error, RunFailed) and error.__cause__ else error
        if message := remedy_of(cause, root):
            _exit(message, 1 if isinstance(error, RunFailed) else getattr(error, "exit_code", 2))
        _exit(_bug(error, cause, root), BUG)


def remedy_of(error: BaseException, root: Path | None) -> str:
    """What the user can mend, in words; "" for a bug."""
    if isinstance(error, UserError):
        return str(error)
    from ddoq_core.errors import InvalidInput  # whose package loads scikit-learn

    if isinstance(error, InvalidInput | FloatingPointError):  # the latter: a training that went out of bounds
        return f"{type(error).__name__}: {error}"
    if isinstance(error, ConnectionError) or (isinstance(error, OSError) and error.errno is None):  # of a network
        return f"{type(error).__name__}: {error}"
    number = _errno_of(error)
    if number in ERRNOS:
        place = getattr(error, "filename", None) or root
        return f"{os.strerror(number)}{f' for {place}' if place else ''}: {ERRNOS[number]}, and {GO_ON}"
    return ""


def _errno_of(error: BaseException) -> int:
    """The system's number of what went wrong, also where a library in Rust tells it in words; 0 if there is none."""
    if isinstance(error, OSError):
        return error.errno or 0
    told = OS_ERROR.search(str(error))
    return int(told[1]) if told else 0


def debugging() -> bool:
    """Whether tracebacks are to be shown."""
    return os.environ.get(DEBUG, "0") not in ("", "0")


def _bug(error: BaseException, cause: BaseException, root: Path | None) -> str:
    said = first_line(cause)
    how = "" if debugging() else "; `ddoq --debug` with the same command shows it here"
    return (
        f"a bug in ddoq, no mistake of yours: {type(cause).__name__}{': ' if said else ''}{said}. "
        f"The traceback is in {_write_log(error, root)}{how}"
    )


def _write_log(error: BaseException, root: Path | None) -> Path:
    """Write the command and the traceback below the root, or where temporary files go."""
    lines = [f"{shlex.join(sys.argv)}\n", *traceback.format_exception(error)]
    if root is not None and (server := root / ".prefect" / "server.log").exists():
        lines.append(f"The Prefect server's log is {server}\n")
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    temporary = Path(tempfile.gettempdir()) / f"ddoq-{name}"
    for path in [temporary] if root is None else [root / LOGS / name, temporary]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines))
        except OSError:
            continue
        return path
    return Path("nowhere, as no file can be written")


def _exit(message: str, code: int) -> NoReturn:
    text = Text.assemble(("ddoq:", "bold red"), " ", message)
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)
    raise SystemExit(code)
