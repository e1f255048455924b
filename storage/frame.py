"""What surrounds the units of an artifact's folder and is in no mark: its plan, and the roots of its zarr stores.

What they must be is known, so they need no hash on record. The plan is also the sign by which a folder is known as an
artifact. Loads no zarr.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from storage.files import list_files, write_whole
from storage.record import Plan, Record, load_mark, load_saved

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


def damaged_frame(folder: Path) -> list[str]:
    """Names of files below an artifact's folder, of those in no mark, that are gone or not what they must be."""
    bad = [] if has_plan(folder) else [PLAN]
    return bad + [f"{store.name}/{ROOT}" for store in stores_of(folder) if not has_root(store)]


def has_plan(folder: Path) -> bool:
    """Whether an artifact's folder has a plan that names it."""
    plan = load_saved(Plan, folder / PLAN)
    return plan is not None and _names(plan, folder)


def stores_of(folder: Path) -> list[Path]:
    """The zarr stores of an artifact's folder."""
    return sorted(folder.glob("[!.]*.zarr"))


def has_root(store: Path) -> bool:
    """Whether the root of a store is what `write_root` or zarr writes."""
    try:
        found = json.loads((store / ROOT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {k: v for k, v in found.items() if v is not None} == GROUP


def write_root(store: Path) -> None:
    """Make a store a group without attributes, as zarr does, unless it is one."""
    if not has_root(store):
        write_whole(store / ROOT, json.dumps(GROUP, indent=2).encode())


def _names(said: Plan | Record, folder: Path) -> bool:
    return (said.stage, said.digest) == (folder.parent.name, folder.name)
