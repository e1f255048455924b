"""Class names as names of files and folders: what users call a class, and what a file system and zarr can hold;
and settings without the names of places on this machine."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import Any

MAX_BYTES = 200  # of the 255 that file systems allow; a write that is under way adds some more
HEAD_BYTES = 80  # that stay readable of a longer name
RESERVED = ("zarr.json",)
STATED = "set.json"  # beside a distilled set: what its tensors do not say, its classes and what floats mean
FORBIDDEN = re.compile(r'[%/\\:*?"<>|]')
ESCAPED = re.compile(r"[^a-z0-9_\- ,;'()&+=!]")


def file_name(class_name: str) -> str:
    """The name of a class's file or folder: plain names stay as they are, of others no two are the same.

    Of a name that is not plain, what is no small letter, digit or harmless sign is percent-encoded, so it differs from
    every other also where case or Unicode form does not count; a long one is cut and ends with its hash. Plain names
    that differ in case alone still need a file system where case counts.
    """
    if is_plain(class_name):
        return class_name
    name = ESCAPED.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), class_name)
    if len(name) <= MAX_BYTES:
        return name
    return f"{name[:HEAD_BYTES]}%~{hashlib.sha256(class_name.encode()).hexdigest()[:24]}"


def unit_path(unit: str) -> str:
    """The path of a unit "<class>/<block>", or of any other name with folders."""
    return "/".join(file_name(part) for part in unit.split("/"))


def is_plain(class_name: str) -> bool:
    """Whether a class's name can be that of its files: printable, not long, and of no meaning to stores."""
    return (
        class_name.isprintable()
        and unicodedata.is_normalized("NFC", class_name)
        and not FORBIDDEN.search(class_name)
        and 0 < len(class_name.encode()) <= MAX_BYTES
        and not class_name.startswith(".")
        and not class_name.lower().endswith(".partial")
        and class_name.lower() not in RESERVED
    )


def without_places(settings: Any) -> Any:
    """Settings as others may see them: of a path on this machine its last part alone."""
    if isinstance(settings, dict):
        return {name: without_places(value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [without_places(value) for value in settings]
    return Path(settings).name if isinstance(settings, str) and settings.startswith(("/", "~", ".")) else settings
