"""Plain tars of class folders, and ImageNet's own tar of one tar per class."""

from __future__ import annotations

from collections.abc import Iterator

from storage.sources.archives import Member, TarFiles, stem_of
from storage.sources.base import Place, split_in
from storage.sources.listing import IMAGE_SUFFIXES_TEXT, SPLITS, WORDNET_ID, ListingBuilder, Location, is_image_name


class TarSource(TarFiles):
    """Members `[anything/][<split>/]<class>/<file>`. A tar inside is a folder, and its images are read through it.

    A tar that is itself called by a WordNet id holds that class.
    """

    layout = f"({IMAGE_SUFFIXES_TEXT}) in class folders inside"

    def list_archive(self, place: Place, path: str, builder: ListingBuilder) -> None:
        above = f"{stem_of(path)}/" if WORDNET_ID.fullmatch(stem_of(path)) else ""
        for member in self._images(path):
            *folders, _ = [part for part in f"{above}{member.name}".split("/") if part not in ("", ".")]
            class_name = folders[-1].removesuffix(".tar") if folders else ""
            split = split_in(place, folders[-2] if len(folders) > 1 else "")
            if not class_name or class_name.startswith(".") or class_name in SPLITS or split is None:
                continue
            at = _location(path, member)
            if member.other:
                builder.refuse(class_name, split, at.name, f"{member.other} inside the tar, not a file")
            else:
                builder.add(class_name, split, at)

    def list_flat_archive(self, path: str) -> Iterator[tuple[str, Location]]:
        for member in self._images(path):
            yield member.name.rsplit("/", 1)[-1], _location(path, member)

    def _images(self, path: str) -> Iterator[Member]:
        for member in self.members(path):
            if member.name.endswith(".tar") and not member.other:
                for image in self.members_inside(path, member):
                    if _is_image(image):
                        yield image._replace(name=f"{member.name}/{image.name}")
            elif _is_image(member):
                yield member


def _is_image(member: Member) -> bool:
    return is_image_name(member.name.rsplit("/", 1)[-1])


def _location(path: str, member: Member) -> Location:
    return Location(path, member.offset, member.length, member.name)
