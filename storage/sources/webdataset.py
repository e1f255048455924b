"""WebDataset shards: tars in which the files of a sample follow each other and share a name up to the first dot.

Layout: https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby

from storage.sources.archives import Member, TarFiles
from storage.sources.base import Place
from storage.sources.listing import ListingBuilder, Location, one_line

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
MAX_LABEL_BYTES = 1 << 20
JSON_KEYS = ("label", "cls", "class")


class WebDatasetSource(TarFiles):
    """Samples of an image (.jpg, .jpeg, .png or .webp) and a label: .cls, a number or a name, or .json with one."""

    layout = "(.jpg .jpeg .png .webp beside a .cls or .json) in the shards"

    def list_archive(self, place: Place, path: str, builder: ListingBuilder) -> None:
        shown = (member for member in self.members(path) if not _is_hidden(member))
        for _, sample in groupby(shown, key=lambda member: _key_and_extension(member)[0]):
            members = list(sample)
            images = [m for m in members if _key_and_extension(m)[1] in IMAGE_EXTENSIONS]
            for image in images:
                at = Location(path, image.offset, image.length, image.name)
                try:
                    if image.other:
                        raise ValueError(f"{image.other}, not a file")
                    if len(images) > 1:
                        raise ValueError("not the only image of its sample")
                    builder.add(self._label(path, members), place.split, at)
                except ValueError as error:
                    builder.refuse("", place.split, at.name, one_line(error))

    def _label(self, path: str, members: Sequence[Member]) -> str:
        """The class of a sample. Raises ValueError with the reason where it has none."""
        by_extension = {_key_and_extension(member)[1]: member for member in members}
        for extension, parse in (("cls", bytes.decode), ("json", _label_in_json)):
            if member := by_extension.get(extension):
                if member.other or member.length > MAX_LABEL_BYTES:
                    raise ValueError(
                        f"its .{extension} is {member.other or f'of {member.length:,} bytes'}, not a label"
                    )
                label = parse(self.read(Location(path, member.offset, member.length, member.name))).strip()
                return str(int(label)) if label.isascii() and label.isdigit() else label
        raise ValueError("its sample has no .cls and no .json")


def _label_in_json(data: bytes) -> str:
    try:
        fields = json.loads(data)
    except RecursionError:
        raise ValueError("its .json is nested too deeply") from None
    for key in JSON_KEYS:
        if isinstance(fields, dict) and isinstance(fields.get(key), int | str):
            return str(fields[key])
    raise ValueError(f"its .json has none of {', '.join(JSON_KEYS)}")


def _is_hidden(member: Member) -> bool:
    return member.name.rpartition("/")[2].startswith(".")


def _key_and_extension(member: Member) -> tuple[str, str]:
    folder, slash, name = member.name.rpartition("/")
    key, _, extension = name.partition(".")
    return f"{folder}{slash}{key}", extension.rpartition(".")[2].lower()
