"""Whether the workers of another cluster can do a run's tasks: asked of each before the first one.

What they are asked by is sent as code, as a worker may lack this package: `look` imports of it what it can.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sys
import uuid
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import cloudpickle

from storage.errors import UsageError

MODULES = ("ddoq_core.errors", "flows.errors", "storage.errors", "tasks.recipe.settings")  # of each package a light one
LIBRARIES = ("torch", "diffusers", "zarr", "prefect")  # of which another version makes other numbers, or nothing
SECONDS = 25.0  # for all workers to answer
PATTERN = frozenset("*?[{")
MOST_TOLD = 10


def look(proof: str, paths: tuple[str, ...]) -> dict[str, Any]:
    """What a process has and sees: a checksum over the package's source (None where it lacks any), versions of
    libraries, what is in the file `proof`, which of these paths are not there, and where it looks for them."""

    def source(module: str) -> bytes:
        try:  # a module of it, as a folder named alike is a package to Python, and Dask's workers have one, "storage"
            found = importlib.import_module(module).__file__
        except ImportError:
            return b""
        package = Path(str(found)).parents[module.count(".") - 1]
        files = [(path.relative_to(package), path) for path in sorted(package.rglob("*.py"))]
        return b"".join(str(name).encode() + path.read_bytes() for name, path in files)

    def version(library: str) -> str:
        try:
            return importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            return "none"

    parts = [source(module) for module in MODULES]
    try:
        word = Path(proof).read_text()
    except OSError:
        word = ""
    return {
        "code": sha256(b"\0".join(parts)).hexdigest() if all(parts) else None,
        "versions": {"Python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "word": word,
        "unseen": [path for path in paths if not Path(path).expanduser().exists()],
        "folder": str(Path.cwd()),
    }


def check_workers(client: Any, root: Path, places: Mapping[str, str]) -> None:
    """Raise UsageError, a line for each worker that lacks the package or has another version of it or of a library that
    matters, or does not see the root, or what the run reads.

    places  paths that tasks read, by the settings that name them
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    proof, word = root / f".seen-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    settings = {_without_pattern(path): f"{name}={path!r}" for name, path in places.items()}
    paths = tuple(path for path in settings if Path(path).expanduser().exists())
    workers = client.scheduler_info(n_workers=-1)["workers"]
    names = {address: f"{worker['name']} ({worker['host']})" for address, worker in workers.items()}
    proof.write_text(word)
    try:
        mine, others = look(str(proof), ()), _answers(client, str(proof), paths)
    finally:
        proof.unlink(missing_ok=True)
    refused = {
        names.get(address, address): reason
        for address, told in others.items()
        if (reason := _refusal(mine, told, root, settings))
    }
    if refused:
        lines = [f"worker {name} {reason}" for name, reason in list(refused.items())[:MOST_TOLD]]
        more = f"\n… and {len(refused) - MOST_TOLD} more" if len(refused) > MOST_TOLD else ""
        raise UsageError("\n".join(lines) + more)


def _answers(client: Any, proof: str, paths: tuple[str, ...]) -> dict[str, Any]:
    """What each worker says, or the error that it answers with, by its address."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        asked = client.sync(client._run, look, proof, paths, on_error="return", callback_timeout=SECONDS)
    except TimeoutError as error:
        raise UsageError(f"not all workers of {client.scheduler.address} answer within {SECONDS:.0f} s") from error
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    return dict(asked)


def _refusal(mine: dict[str, Any], told: Any, root: Path, settings: Mapping[str, str]) -> str | None:
    """Why a worker with such an answer cannot take part, None if it can."""
    if isinstance(told, BaseException):
        return f"fails at what it is asked ({type(told).__name__}: {told}): start it with the same Python and packages"
    if told["code"] is None:
        return "lacks the package ddoq: install it there, in the version of this run"
    if told["code"] != mine["code"]:
        return "has ddoq in another version: install the one of this run there"
    for name, version in mine["versions"].items():
        if told["versions"][name] != version:
            return f"has {name} {told['versions'][name]}, this run {version}: install the same there"
    if told["word"] != mine["word"]:
        return f"does not see {root}: give --root on a file system that all workers share"
    if told["unseen"]:
        named = ", ".join(settings[path] for path in told["unseen"])
        return f"does not see {named} from its folder {told['folder']}: give a whole path that all workers see"
    return None


def _without_pattern(path: str) -> str:
    """The folder that a pattern starts in, or the path as it is."""
    whole = Path(path)
    while PATTERN & set(str(whole)):
        whole = whole.parent
    return str(whole)
