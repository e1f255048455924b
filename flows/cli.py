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
from typing import Annotated, Any

import typer
from rich.text import Text

from flows import local
from flows.artifacts import Root, console, export, forget, gc, inspect, status, verify
from flows.catalogue import given_rows, grid_of, load_recipe, matrix_of, recipes, within
from flows.errors import DEBUG, TERMINATED, Terminated
from flows.errors import clear_errors as _clear_errors
from flows.hub import push
from flows.server import prefect_server
from flows.workers import num_workers, scheduler_address
from storage.errors import UsageError
from tasks.recipe.matrix import check_changes
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import STAGES

app = typer.Typer(
    name="ddoq",
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipeName = Annotated[str, typer.Argument(help="e.g. digits (see: ddoq recipes)")]
Ipc = Annotated[int | None, typer.Option("--ipc", help="images per class, instead of the recipe's")]
Minutes = Annotated[float | None, typer.Option("--minutes", help="about how long; models get as many steps as fit")]
Set = Annotated[list[str] | None, typer.Option("--set", help="another setting, e.g. --set decode.strength=0.2")]
Given = Annotated[
    list[str] | None,
    typer.Option("--given", metavar="NAME=PATH", help="a set that was made elsewhere; or NAME={settings of decode}"),
]
ClassOrder = Annotated[
    str | None,
    typer.Option("--class-order", help="of given sets with bare numbers: sorted, or names between commas or in a file"),
]
OwnLabels = Annotated[bool, typer.Option("--own-labels", help="train on the given sets' own soft labels")]
NumSeeds = Annotated[int, typer.Option("--seeds", min=2, help="how many; an interval needs two")]
Cluster = Annotated[
    str | None,
    typer.Option("--cluster", help="address of a Dask scheduler, e.g. tcp://10.0.0.1:8786; else DDOQ_CLUSTER"),
]
Workers = Annotated[
    str | None,
    typer.Option("--workers", metavar="N", help="local worker processes; else DDOQ_WORKERS, or one per core"),
]
Track = Annotated[
    str | None,
    typer.Option("--track", metavar="MODULE", callback=local.track, help="tell trackio or wandb; else DDOQ_TRACK"),
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
    minutes: Minutes = None,
    settings: Set = None,
    root: Root = Path("runs"),
    cluster: Cluster = None,
    workers: Workers = None,
    track: Track = None,
) -> None:
    """Run a recipe from the images to the report. What is already done is not done again.

    Starts a Prefect server of its own on loopback and ends it afterwards, unless PREFECT_API_URL names one.
    """
    _run("distill", recipe, ipc, settings, root, cluster, workers, minutes=minutes)


@app.command()
def plan(
    recipe: RecipeName,
    ipc: Ipc = None,
    minutes: Minutes = None,
    settings: Set = None,
    root: Root = Path("runs"),
    workers: Workers = None,
    probe: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="to find out what a unit costs here; 0: only count them")
    ] = 55,
) -> None:
    """Tell what a run will cost before it runs: units of each stage, bytes, floating-point operations, and hours here.

    The images are listed, unless they were; what is done already is left out. Then a miniature of the recipe goes
    through all stages, for about a minute, and what it took is multiplied; that is kept, and is not done again.
    """
    with _clear_errors(root):
        number, whole = num_workers(workers), load_recipe(recipe, ipc, settings)
        if minutes is not None:
            whole = within(whole, minutes)
        local.check_writable(root)
        with console.status("listing the images"):
            from flows import miniature, plan
            from tasks.inputs.data import shard_artifact

            if not shard_artifact(root.absolute(), whole.data).is_done():
                local.check(whole, root, "distill")
            whole, works = plan.listed(whole, root)
        counted = plan.counted(works)
        plan.show_units(console, counted)
        if not probe:
            return
        with console.status("running the recipe in miniature"):
            costs = miniature.costs_of(whole, works, probe)
        found = plan.estimated(counted, works, whole, costs, number)
        plan.show(console, found, number)
        plan.check_disk(found, root)


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
    ipc: Annotated[
        list[int] | None, typer.Option("--ipc", help="images per class; 1 and 10, or those of given sets, if not given")
    ] = None,
    given: Given = None,
    class_order: ClassOrder = None,
    own_labels: OwnLabels = False,
    seeds: NumSeeds = 5,
    quantizer: Annotated[
        list[str] | None,
        typer.Option(help="stream, exact, balanced; those if not given. Or clvq, divisive, centre-margin"),
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="uniform, sqrt, mass; those if not given. Or a power")
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            help="diffusion, autoencoder, medoid, random; those if not given. Or member, selection, mosaic, mgd3, dmgd"
        ),
    ] = None,
    weights_in: Annotated[list[str] | None, typer.Option(help="loss, sampling; loss if not given")] = None,
    settings: Set = None,
    root: Root = Path("runs"),
    cluster: Cluster = None,
    workers: Workers = None,
    track: Track = None,
) -> None:
    """Compare quantisers × weights × pictures, and sets made elsewhere, under a recipe's protocol, with intervals over
    seeds and a page that can be put online.

    Everything that two cells have in common is made once, and shared with `ddoq run`. Options that take several values
    are given several times: --quantizer exact --quantizer stream.
    """
    asked = {
        "seeds": list(range(seeds)),
        "quantizers": quantizer,
        "weights": weights,
        "pictures": pictures,
        "weights_in": weights_in,
    }
    with _clear_errors():
        check_changes(settings or [])
        sets = given_rows(given or [], class_order, own_labels)
        asked["ipc"] = ipc or sorted({row["ipc"] for row in sets.values()})
        matrix = matrix_of({name: values for name, values in {**asked, "given": sets}.items() if values})
    _run("compare", recipe, max(matrix.ipc), settings, root, cluster, workers, matrix=matrix)


@app.command()
def evaluate(
    recipe: RecipeName,
    given: Given = None,
    class_order: ClassOrder = None,
    own_labels: OwnLabels = False,
    seeds: NumSeeds = 5,
    settings: Set = None,
    root: Root = Path("runs"),
    cluster: Cluster = None,
    workers: Workers = None,
) -> None:
    """Score a distilled set that was made elsewhere, under a recipe's protocol, beside real images at random.

    Takes class folders of pictures, .pt and .npz tensors, a folder of images.pt and labels.pt, Hugging Face's Parquet
    or Arrow, WebDataset's tars. Floats and bare numbers of classes are explained by a file set.json beside them:
    {"classes": [...], "mean": [...], "std": [...]}, or "value_range": [0, 1].
    No autoencoder and no prior is needed. The same as `ddoq compare --pictures random --weights uniform --given …`.
    """
    with _clear_errors():
        if not given:
            raise UsageError("nothing is given: name a set, --given theirs=FOLDER")
    compare(
        recipe,
        given=given,
        class_order=class_order,
        own_labels=own_labels,
        seeds=seeds,
        weights=["uniform"],
        pictures=["random"],
        settings=settings,
        root=root,
        cluster=cluster,
        workers=workers,
    )


@app.command()
def tune(
    recipe: RecipeName,
    strength: Annotated[list[float] | None, typer.Option(help="0.5, 0.7, 0.85 and 1 if not given")] = None,
    guidance_scale: Annotated[list[float] | None, typer.Option(help="1.5 and 3 if not given")] = None,
    num_steps: Annotated[list[int] | None, typer.Option(help="the recipe's, if not given")] = None,
    noise: Annotated[list[str] | None, typer.Option(help="plain, cell, class; the recipe's, if not given")] = None,
    num_candidates: Annotated[list[int] | None, typer.Option(help="the recipe's, if not given")] = None,
    seeds: NumSeeds = 3,
    method: Annotated[
        str | None, typer.Option("--method", help="which is changed; the first that decodes through the prior")
    ] = None,
    ipc: Ipc = None,
    settings: Set = None,
    root: Root = Path("runs"),
    cluster: Cluster = None,
    workers: Workers = None,
) -> None:
    """Find where decoding should start and how hard it should guide, by the accuracy of students.

    They are judged on training images that the recipe keeps for it (data.tune_fraction), never on validation. Every
    value is tried with each. Options that take several values are given several times: --strength 0.5 --strength 1.
    """
    given = {
        "strength": strength,
        "guidance_scale": guidance_scale,
        "num_steps": num_steps,
        "noise": noise,
        "num_candidates": num_candidates,
        "seeds": list(range(seeds)),
    }
    with _clear_errors():
        grid = grid_of({name: values for name, values in given.items() if values})
    _run("tune", recipe, ipc, settings, root, cluster, workers, grid=grid, method=method)


@app.command()
def serve(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE", help="e.g. digits; all of the catalogue if none is named"),
    ] = None,
    settings: Set = None,
    root: Root = Path("runs"),
) -> None:
    """Serve recipes with Prefect on this machine: server, pages, deployments and worker in one, until Ctrl-C.

    It says where the pages are and what to type in another terminal, where a run is asked for and watched:

        prefect deployment run distill/digits -p ipc=5 --watch

    Parameters are ipc, data (a path), minutes, seeds, e.g. '[0, 1]', and changes, e.g. '{"decode.strength": 0.4}'.
    There is compare/digits, tune/digits and each stage, e.g. cluster/digits. One run is done at a time, others wait.

    The server is on loopback and of this user alone; it ends with the command. Where PREFECT_API_URL names one, that is
    used. DDOQ_WORKERS and DDOQ_CLUSTER hold for the runs.
    """
    with _clear_errors(root):
        chosen = [load_recipe(name, None, settings) for name in names or recipes()]
        num_workers(), scheduler_address()
        local.check_writable(root)
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")  # what a run says is for its watcher
        with prefect_server(root, pages=True) as server:
            with console.status("starting the Prefect server"):
                from flows.serve import serve as serve_here

                server.wait()
            serve_here(console, chosen, root, server.secret)


for command in (inspect, verify, status, forget, gc, export, push):
    app.command()(command)


def _run(
    flow: str,
    name: str,
    ipc: int | None,
    settings: list[str] | None,
    root: Path,
    cluster: str | None,
    workers: str | None,
    minutes: float | None = None,
    **own: Any,
) -> None:
    """Run a flow on a recipe of the catalogue, in this process, with what is its own, and show what it found."""
    start = time.monotonic()
    with _clear_errors(root):
        number, address = num_workers(workers), scheduler_address(cluster)
        recipe = load_recipe(name, ipc, settings)
        if minutes is not None:
            recipe = within(recipe, minutes)
        whole, *others = local.wholes(recipe, **own)
        local.check_settings(whole)
        local.check_writable(root)
        with prefect_server(root) as server:
            local.check(whole, root, flow, *others)
            with console.status("starting the Prefect server"):
                local.prepare()
                server.wait()
            found = local.execute(flow, recipe, root, cluster=address, workers=number, **own)
    from flows.summary import show, show_comparison, show_tuning

    shown = {"compare": show_comparison, "tune": show_tuning}.get(flow, show)
    shown(console, recipe, found, time.monotonic() - start)


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
