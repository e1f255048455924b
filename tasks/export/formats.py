"""The forms of an export. A folder is written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from storage.artifact import Artifact
from storage.errors import UsageError
from storage.files import whole_folder, write_json
from storage.names import STATED
from tasks.export import dd_ranking, huggingface, imagefolder, torch, webdataset
from tasks.export.card import card_text, front_matter
from tasks.export.handout import CARD, Handout
from tasks.export.models import KINDS, write_model

TEACHER = "teacher"  # the folder of the model that the soft labels are of
Writer = Callable[[Handout, Path], None]
WRITERS: dict[str, tuple[Writer, ...]] = {
    "imagefolder": (imagefolder.write,),
    "huggingface": (huggingface.write,),
    "webdataset": (webdataset.write,),
    "dd-ranking": (dd_ranking.write, imagefolder.write),
    "torch": (torch.write,),
}


def check_export(form: str, out: Path) -> None:
    """Raise UsageError for an unknown form or a folder that is not empty."""
    if form not in (*WRITERS, *KINDS):
        raise UsageError(f"unknown format {form!r}: there are {', '.join((*WRITERS, *KINDS))}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder: give another with --out")


def export(handout: Handout, form: str, out: Path, teacher: Artifact | None = None) -> None:
    """Write the set into a new folder, with a teacher and its card, if one is to go with it. Raises UsageError as
    check_export does."""
    check_export(form, out)
    with whole_folder(out) as folder:
        for write in WRITERS[form]:
            write(handout, folder)
        told = dd_ranking.told_of(handout) if form == "dd-ranking" else {}
        write_json(folder / STATED, {"classes": handout.classes, **told})
        if teacher:
            write_model(teacher, folder / TEACHER)
        columns = huggingface.columns_of(handout) if form == "huggingface" else {}
        (folder / CARD).write_text(card_text(handout, front_matter(handout, form, columns)))
