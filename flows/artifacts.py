"""The commands that look at artifacts, mend them and hand them out."""

from __future__ import annotations

import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.catalogue import recipes, weighting_of
from flows.errors import clear_errors as _clear_errors
from storage.errors import UsageError
from tasks.recipe.recipe import Recipe

if TYPE_CHECKING:
    from storage.artifact import Artifact
    from tasks.export.choice import Choice

console = Console(markup=False, emoji=False)
Root = Annotated[Path, typer.Option("--root", help="the folder of all artifacts")]


def inspect(
    path: Annotated[Path, typer.Argument(help="an artifact's folder, e.g. runs/digits/encode")],
) -> None:
    """Show what an artifact was made with, what it holds and what is missing."""
    from storage.inspection import describe

    with _clear_errors():
        console.print(describe(path))


def verify(
    root: Annotated[Path, typer.Argument(help="a run root or one artifact's folder")] = Path("runs"),
    sources: Annotated[bool, typer.Option("--sources", help="also read the source images again")] = False,
) -> None:
    """Read every file and compare it with its checksum. The next run makes damaged units anew.

    With --sources every image is read as well and compared with the index: size and time do not tell all.
    """
    from storage.inspection import artifact_folders, unchecked_files, verify_folder
    from tasks.inputs.runs import damaged_runs

    with _clear_errors(root):
        folders = artifact_folders(root)
        damaged = [line for folder in folders for line in verify_folder(folder)] + list(damaged_runs(root))
        changed = _verify_sources(folders) if sources else []
        unchecked = sum(map(unchecked_files, folders))
    for line in damaged + changed:
        console.print(line, soft_wrap=True, highlight=False)
    if unchecked:
        console.print(
            f"{unchecked} plans, marks and records were written before these had checksums: taken as they are"
        )
    found = f", {len(changed)} changed images" if sources else ""
    remedy = ": run the recipe again" if damaged else ""
    console.print(f"{len(folders)} artifacts read, {len(damaged)} damaged files{found}{remedy}")
    raise typer.Exit(1 if damaged or changed else 0)


def _verify_sources(folders: list[Path]) -> list[str]:
    """Lines on the source images of the data sets among these artifacts."""
    from storage.artifact import Artifact
    from tasks.inputs.data import changed_sources

    lines: list[str] = []
    with console.status("reading the source images") as status:

        def tell(done: int, total: int) -> None:
            status.update(f"reading the source images: {done:,} of {total:,}")

        for folder in folders:
            if folder.parent.name == "shard":
                lines += changed_sources(Artifact.open(folder), tell)
    return lines


def forget(
    path: Annotated[Path, typer.Argument(help="an artifact's folder, e.g. runs/digits/prototypes-ddoq-0")],
    units: Annotated[list[str] | None, typer.Argument(help="units of it, e.g. classes; all if none is named")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Drop an artifact or some of its units, so that the next run makes them anew.

    Asks before all of an artifact is dropped, or more than three units of it.
    """
    from storage.inspection import forgetting

    with _clear_errors():
        wanted = forgetting(path, units or [])
        if wanted.is_much and not yes:
            _ask(f"forget {wanted}?")
        for line in wanted.carry_out():
            console.print(line, soft_wrap=True, highlight=False)


def _ask(question: str) -> None:
    """Go on after a yes. Raises UsageError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody is there to say yes: say so with --yes")
    if not typer.confirm(question):
        raise typer.Exit(1)


def status(root: Annotated[Path, typer.Argument(help="a run root")] = Path("runs")) -> None:
    """Show a root's stages, the recipes that were run there, and what is in work just now, by which process."""
    from storage.housekeeping import leases, runs, stages

    with _clear_errors(root):
        table = Table("stage", "complete", "begun", "bytes")
        for stage in stages(root):
            table.add_row(stage.name, str(stage.complete), str(stage.begun), f"{stage.num_bytes:,}")
        console.print(table)
        for run in runs(root):
            console.print(f"run: {run.name}, last ended {_ago(run.stat().st_mtime)} ago")
        in_work = list(leases(root))
        for name, held in in_work:
            unit = f", unit {held.unit}" if held.unit else ""
            who = f"process {held.pid} on {held.host}, since {_ago(held.since)}"
            console.print(f"in work: {name}{unit}: {who}", soft_wrap=True, highlight=False)
        if not in_work:
            console.print("nothing is in work")


def _ago(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(time.time() - seconds))))


def gc(
    root: Annotated[Path, typer.Argument(help="a run root")] = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="drop them; without it they are only listed")] = False,
    hours: Annotated[float, typer.Option("--hours", min=0, help="only what has not grown for so long")] = 24,
) -> None:
    """List the artifacts that no recipe's links lead to, the largest first, and with --yes drop them.

    Links are those of each recipe's newest run and comparison: what an earlier run made with other settings, and what
    `ddoq tune` tried, is not among them. A run that was cut off has left no links: go on with it first.
    """
    from storage.housekeeping import unreachable

    with _clear_errors(root):
        total = 0
        for num_bytes, folder in unreachable(root, hours):
            if yes:
                shutil.rmtree(folder)
            total += num_bytes
            console.print(f"{num_bytes:>16,} bytes  {folder.parent.name}/{folder.name}", highlight=False)
    done = "dropped" if yes else "that nothing leads to" + ("; --yes drops them" if total else "")
    console.print(f"{total:>16,} bytes {done}", highlight=False)


def export(
    what: Annotated[str, typer.Argument(help="a recipe that was run, or a folder like runs/digits/images-ddoq-0")],
    form: Annotated[
        str, typer.Option("--to", help="imagefolder, huggingface, webdataset, dd-ranking, torch; teacher, prior")
    ],
    out: Annotated[Path, typer.Option("--out", help="a new folder")],
    method: Annotated[
        str | None,
        typer.Option("--method", help="of a recipe; if not given, the one that the run prefers, or its first"),
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="uniform, sqrt, mass or a power; the method's if not given")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="a teacher's folder, for its logits; the run's if not given")
    ] = None,
    with_teacher: Annotated[bool, typer.Option("--with-teacher", help="the teacher's weights go with the set")] = False,
    root: Root = Path("runs"),
) -> None:
    """Write the distilled pictures with weights and soft labels as other tools read them, or a model of the run.

    The newest run of a recipe says which settings it had; so it does of a folder of pictures that it has made.
    """
    from tasks.export.choice import choose
    from tasks.export.collect import collect
    from tasks.export.formats import check_export
    from tasks.export.formats import export as write
    from tasks.export.models import KINDS, export_model

    if form in KINDS:
        with _clear_errors():
            check_export(form, out)
            export_model(_model_of(what, form, root), out)
        console.print(f"the {form} of {what}, written to {out}", soft_wrap=True, markup=False, highlight=False)
        return
    with _clear_errors():
        check_export(form, out)
        chosen = choose(what, root, method=method, weights=weighting_of(weights), teacher=teacher)
        if with_teacher and chosen.teacher is None:
            raise UsageError("there is no teacher to go with it: name one by --teacher, or leave --with-teacher out")
        judge = chosen.teacher if with_teacher else None
        handout = collect(chosen.decode, chosen.weights, chosen.teacher, _told(chosen, root, judge is not None))
        write(handout, form, out, judge)
    soft = "" if handout.logits is None else " with soft labels"
    what = f"{len(handout.images)} pictures{soft} and {chosen.weights} weights"
    written = ", ".join(part for part in (what, chosen.reason) if part) + f", written to {out}"
    console.print(written, soft_wrap=True, markup=False, highlight=False)


def _model_of(what: str, kind: str, root: Path) -> Artifact:
    """The teacher or the prior of a recipe's newest run."""
    from storage.artifact import Artifact, NotDone
    from tasks.inputs.runs import kept_run

    run = kept_run(root / what)
    if run is None:
        raise NotDone(f"{what!r} is no recipe that was run in {root}: run it first")
    if kind not in run.artifacts:
        raise UsageError(f"the run of {what} has no {kind}: its methods need none")
    return Artifact.open(root / run.artifacts[kind])


def _told(chosen: Choice, root: Path, with_teacher: bool) -> dict[str, Any]:
    """What a card says of the run that a set is of."""
    from tasks.export.formats import TEACHER
    from tasks.export.score import command_of, scores_of

    if chosen.run is None or chosen.method is None:
        return {}
    recipe = chosen.run.recipe
    usual = Recipe.model_validate(recipes()[recipe.name]) if recipe.name in recipes() else None
    weights = f"{TEACHER}/model.safetensors" if with_teacher else None
    accuracy = scores_of(chosen.run, chosen.method, root)
    return {"method": chosen.method, "accuracy": accuracy, "command": command_of(recipe, usual, weights)}
