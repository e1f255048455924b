"""What surrounds the units of an artifact's folder and is in no mark: its plan, and the roots of its zarr stores.

What they must be is known. While units are missing a root is a bare group, so that a store can grow; that of a finished
one has the metadata of all its arrays (zarr's consolidated metadata, without which xarray warns), and the record its
hash. The plan is also the sign by which a folder is known as an artifact. Loads no zarr.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from storage.files import canonical_json, list_files, write_whole
from storage.record import FileStamp, Plan, Record, load_mark, load_saved

PLAN, RECORD, MARKS, ROOT = "plan.json", "record.json", "marks", "zarr.json"
DIGEST = re.compile(r"[0-9a-f]{12}")
GROUP = {"attributes": {}, "zarr_format": 3, "node_type": "group"}


def is_artifact(folder: Path) -> bool:
    """Whether a folder `<root>/<stage>/<digest>` is an artifact's: its plan names it, or where the plan is damaged its
    record does, or where that is damaged too it has marks of units."""
    if not DIGEST.fullmatch(folder.name):
        return False
    said = load_saved(Plan, folder / PLAN) or load_saved(Record, folder / RECORD)
    if said is not None:
        return _names(said, folder)
    return any(load_mark(folder, path) for path in list_files(folder / MARKS))


def damaged_frame(folder: Path, roots: Mapping[str, FileStamp] | None) -> list[str]:
    """Names of files below an artifact's folder, of those in no mark, that are gone or not what they must be.

    roots  those of its stores that its record tells of; None for one without a record, whose roots are written anew
    """
    bad = [] if has_plan(folder) else [PLAN]
    if roots is None:
        return bad
    for store in stores_of(folder):
        stamp = roots.get(root_name(store))
        if not (stamp.is_read_from(store / ROOT) if stamp else has_root(store)):
            bad.append(root_name(store))
    return bad


def has_plan(folder: Path) -> bool:
    """Whether an artifact's folder has a plan that names it."""
    plan = load_saved(Plan, folder / PLAN)
    return plan is not None and _names(plan, folder)


def stores_of(folder: Path) -> list[Path]:
    """The zarr stores of an artifact's folder."""
    return sorted(folder.glob("[!.]*.zarr"))


def root_name(store: Path) -> str:
    """The name of a store's root below the artifact's folder."""
    return f"{store.name}/{ROOT}"


def has_root(store: Path) -> bool:
    """Whether the root of a store is what `write_root` or zarr writes: a bare group."""
    try:
        found = json.loads((store / ROOT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {k: v for k, v in found.items() if v is not None} == GROUP


def write_root(store: Path) -> None:
    """Make a store a group without attributes, as zarr does, unless it is one."""
    if not has_root(store):
        write_whole(store / ROOT, json.dumps(GROUP, indent=2).encode())


def finish_root(store: Path, files: Iterable[str], attributes: Mapping[str, Any]) -> None:
    """Give the root of a store these attributes and the metadata among its files, as `zarr.consolidate_metadata` would
    without its warning. Written only where it is not so already.

    files  by their names below the store
    """
    nodes = sorted(name.removesuffix(f"/{ROOT}") for name in files if name.endswith(f"/{ROOT}"))
    metadata = {node: json.loads((store / node / ROOT).read_bytes()) for node in nodes}
    inline = {"kind": "inline", "must_understand": False, "metadata": metadata}
    data = canonical_json({**GROUP, "attributes": attributes, "consolidated_metadata": inline})
    if not (store / ROOT).exists() or (store / ROOT).read_bytes() != data:
        write_whole(store / ROOT, data)


def _names(said: Plan | Record, folder: Path) -> bool:
    return (said.stage, said.digest) == (folder.parent.name, folder.name)
