"""The command line: the same recipes and flows as the deployments, for one machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Timer
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from flows.catalogue import load_recipe, matrix_of, recipes, weighting_of
from flows.errors import DEBUG, TERMINATED, Terminated
from flows.errors import clear_errors as _clear_errors
from flows.server import prefect_server
from flows.workers import num_workers, scheduler_address
from storage.errors import UsageError
from tasks.recipe.matrix import Matrix, check_changes
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import STAGES

app = typer.Typer(
    name="ddoq",
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(markup=False, emoji=False)

RecipeName = Annotated[str, typer.Argument(help="e.g. digits (see: ddoq recipes)")]
Ipc = Annotated[int | None, typer.Option("--ipc", help="images per class, instead of the recipe's")]
Set = Annotated[list[str] | None, typer.Option("--set", help="another setting, e.g. --set decode.strength=0.2")]
Root = Annotated[Path, typer.Option("--root", help="the folder of all artifacts")]
Cluster = Annotated[
    str | None,
    typer.Option("--cluster", help="address of a Dask scheduler, e.g. tcp://10.0.0.1:8786; else DDOQ_CLUSTER"),
]
Workers = Annotated[
    str | None,
    typer.Option("--workers", metavar="N", help="local worker processes; else DDOQ_WORKERS, or one per core"),
]


@app.callback(invoke_without_command=True)
def ddoq(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="show the version")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error, as DDOQ_DEBUG=1")] = False,
) -> None:
    """Distil a data set into a few weighted images per class. Try it: ddoq run digits"""
    if debug:
        os.environ[DEBUG] = "1"
    if show_version:
        console.print(f"ddoq {version('ddoq')}", highlight=False)
        raise typer.Exit
    if context.invoked_subcommand is None:
        console.print(context.get_help())
        raise typer.Exit(2)


@app.command("recipes")
def list_recipes() -> None:
    """List the recipes of the catalogue and what each claims.

    The catalogue comes with ddoq. A prefect.yaml in the current folder adds recipes, or replaces those of the same
    name, by its deployments of our flow: those whose entrypoint ends in ":distill" and whose parameters have a
    "recipe". Nothing else in it is looked at.
    """
    with _clear_errors():
        for name, parameters in recipes().items():
            console.print(Text.assemble((name, "bold"), "  ", str(parameters.get("claim", ""))))


@app.command()
def run(
    recipe: RecipeName,
    ipc: Ipc = None,
    settings: Set = None,
    root: Root = Path("runs"),
    cluster: Cluster = None,
    workers: Workers = None,
) -> None:
    """Run a recipe from the images to the report. What is already done is not done again.

    Starts a Prefect server of its own on loopback and ends it afterwards, unless PREFECT_API_URL names one.
    """
    _run("distill", recipe, ipc, settings, root, cluster, workers)


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="one of: " + ", ".join(STAGES))],
    recipe: RecipeName,
    ipc: Ipc = None,
    settings: Set = None,
    root: Root = Path("runs"),
    cluster: Cluster = None,
    workers: Workers = None,
) -> None:
    """Run one stage of a recipe; what it reads must be complete."""
    with _clear_errors():
        if name not in STAGES:
            raise UsageError(f"unknown stage {name!r}: there are {', '.join(STAGES)}")
    _run(name, recipe, ipc, settings, root, cluster, workers)


@app.command()
def compare(
    recipe: RecipeName,
    ipc: Annotated[list[int] | None, typer.Option("--ipc", help="images per class; 1 and 10 if not given")] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="how many; an interval needs two")] = 5,
    quantizer: Annotated[
        list[str] | None, typer.Option(help="stream, exact, balanced; those if not given. Or clvq")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="uniform, sqrt, mass; those if not given. Or a power")
    ] = None,
    pictures: Annotated[
        list[str] | None, typer.Option(help="diffusion, autoencoder, medoid, random; all, if not given")
    ] = None,
    weights_in: Annotated[list[str] | None, typer.Option(help="loss, sampling; loss if not given")] = None,
    settings: Set = None,
    root: Root = Path("runs"),
    cluster: Cluster = None,
    workers: Workers = None,
) -> None:
    """Compare quantisers × weights × pictures under a recipe's protocol, with intervals over seeds and a page.

    Everything that two cells have in common is made once, and shared with `ddoq run`. Options that take several values
    are given several times: --quantizer exact --quantizer stream.
    """
    given = {
        "ipc": ipc,
        "seeds": list(range(seeds)),
        "quantizers": quantizer,
        "weights": weights,
        "pictures": pictures,
        "weights_in": weights_in,
    }
    with _clear_errors():
        check_changes(settings or [])
        matrix = matrix_of({name: values for name, values in given.items() if values})
    _run("compare", recipe, max(matrix.ipc), settings, root, cluster, workers, matrix)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="an artifact's folder, e.g. runs/digits/encode")],
) -> None:
    """Show what an artifact was made with, what it holds and what is missing."""
    from storage.inspection import describe

    with _clear_errors():
        console.print(describe(path))


@app.command()
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


@app.command()
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


@app.command()
def export(
    what: Annotated[str, typer.Argument(help="a recipe that was run, or a folder like runs/digits/images-ddoq-0")],
    form: Annotated[str, typer.Option("--to", help="imagefolder, huggingface, webdataset, dd-ranking or torch")],
    out: Annotated[Path, typer.Option("--out", help="a new folder")],
    method: Annotated[str | None, typer.Option("--method", help="of a recipe; its first if not given")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="uniform, sqrt, mass or a power; the method's if not given")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="a teacher's folder, for its logits; the run's if not given")
    ] = None,
    root: Root = Path("runs"),
) -> None:
    """Write the distilled pictures with weights and soft labels as other tools read them.

    The newest run of a recipe says which settings it had; so it does of a folder of pictures that it has made.
    """
    from tasks.export.choice import choose
    from tasks.export.collect import collect
    from tasks.export.formats import check_export
    from tasks.export.formats import export as write

    with _clear_errors():
        check_export(form, out)
        chosen = choose(what, root, method=method, weights=weighting_of(weights), teacher=teacher)
        handout = collect(*chosen)
        write(handout, form, out)
    soft = "" if handout.logits is None else " with soft labels"
    written = f"{len(handout.images)} pictures{soft} and {chosen.weights} weights written to {out}"
    console.print(written, soft_wrap=True, markup=False, highlight=False)


def _run(
    flow: str,
    name: str,
    ipc: int | None,
    settings: list[str] | None,
    root: Path,
    cluster: str | None,
    workers: str | None,
    matrix: Matrix | None = None,
) -> None:
    """Run a flow on a recipe of the catalogue, in this process, and show what it found."""
    start = time.monotonic()
    from flows import local

    with _clear_errors(root):
        number, address = num_workers(workers), scheduler_address(cluster)
        recipe = load_recipe(name, ipc, settings)
        whole = recipe if matrix is None else matrix.recipe(recipe, max(matrix.ipc))
        local.check_settings(whole)
        _check_writable(root)
        with prefect_server(root) as server:
            local.check(whole, root, flow)
            with console.status("starting the Prefect server"):
                local.prepare()
                server.wait()
            own = {} if matrix is None else {"matrix": matrix}
            found = local.execute(flow, recipe, root, cluster=address, workers=number, **own)
    from flows.summary import show, show_comparison

    seconds = time.monotonic() - start
    if matrix is None:
        show(console, recipe, found, seconds)
    else:
        show_comparison(console, name, found, seconds)


def _check_writable(root: Path) -> None:
    probe = root / f".write-{os.getpid()}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UsageError(f"run root {root} cannot be written ({error.strerror}): give another with --root") from error


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = partial(_send_again, os.getpid())
    with _clear_errors():
        app()


def _terminate(*_: object) -> None:
    raise Terminated(TERMINATED)


def _send_again(process: int, lost: sys.UnraisableHookArgs) -> None:
    """Send a signal once more to this process, a moment later, of which the exception was lost: Python drops what is
    raised in its own hooks of a fork."""
    number = {Terminated: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(lost.exc_type)
    if number is None:
        sys.__unraisablehook__(lost)
    elif process == os.getpid():
        Timer(0.05, os.kill, (process, number)).start()


__all__ = ["Recipe", "app", "main"]
