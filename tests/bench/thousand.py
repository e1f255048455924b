"""ImageNet's recipes in miniature: 1,000 classes through a Prefect server, a work pool and its worker, as users run it.

    uv run python -m tests.bench.thousand [--classes 1000] [--recipe imagenet]

1,000 WordNet-id folders of 20 JPEGs, tiny pipelines of random weights in the published formats, and the recipe with
nothing changed but data, weights and sizes: `prefect deployment run distill/<recipe> --watch`, and the same again. The
last line is JSON:

seconds           of the first command
overhead_seconds  of these what is neither reading nor a model nor k-means: less the seconds that the artifacts' records
                  tell of reading and computing, those of the stages on workers divided by the workers
rerun_seconds     of the second command, which finds everything done
flow_growth       peak memory of the flow's own process, over that of a run of a tenth of the classes
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from storage.cores import num_cores
from tasks.recipe.settings import STAGES
from tests.flows.conftest import SCRIPTS, Command, answers, deployed, free_port, start, wait_until
from tests.miniature import IPC, RECIPES, changes, write_images, write_models

PER_CLASS = 20
LIMIT_SECONDS = 3600
console = Console(width=120)


@dataclass
class Served:
    """A Prefect server with all deployments, and a worker of their pool."""

    api: dict[str, str]
    worker: Command

    def run(self, recipe: str, told: dict[str, object], root: Path) -> float:
        """Seconds of `prefect deployment run`, which must end well."""
        given = ("-p", f"changes={json.dumps(told)}", "-p", f"root={root}", "-p", f"ipc={IPC}")
        begun = time.monotonic()
        command = start(SCRIPTS / "prefect", "deployment", "run", f"distill/{recipe}", *given, "--watch", **self.api)
        result = command.result(LIMIT_SECONDS)
        assert result.code == 0, result.output + result.errors
        return time.monotonic() - begun


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """What `prefect server start`, `prefect deploy --all` and `prefect worker start` give."""
    port = str(free_port())
    api = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_HOME": str(folder)}
    server = start(SCRIPTS / "prefect", "server", "start", "--host", "127.0.0.1", "--port", port, read=False, **api)
    try:
        wait_until(lambda: answers(f"{api['PREFECT_API_URL']}/health"), 120, "the server answers")
        with deployed(api) as worker:
            yield Served(api, worker)
    finally:
        server.end()


class FlowMemory(threading.Thread):
    """Watches the processes of a worker, and keeps the peak of the one that runs the flow."""

    def __init__(self, worker: Command) -> None:
        super().__init__(daemon=True)
        self.worker, self.peak_bytes, self.over = worker, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            for process in self.worker.alive():
                with suppress(psutil.Error, OSError, IndexError):
                    if "prefect.flow_engine" in " ".join(process.cmdline()) or "prefect.engine" in process.cmdline():
                        told = Path(f"/proc/{process.pid}/status").read_text()
                        self.peak_bytes = max(self.peak_bytes, 1024 * int(told.split("VmHWM:")[1].split()[0]))


def distil(service: Served, recipe: str, folder: Path, num_classes: int) -> dict[str, float]:
    """The figures of one recipe at a number of classes."""
    images, models = write_images(folder / "images", num_classes, PER_CLASS), write_models(folder / "models")
    told, root, memory = changes(recipe, images, models), folder / "runs", FlowMemory(service.worker)
    memory.start()
    seconds = service.run(recipe, told, root)
    memory.over.set()
    busy = busy_seconds(root)
    rerun = service.run(recipe, told, root)
    table = Table("stage", "read and computed, s", "written, s", title=f"{recipe}, {num_classes} classes", width=70)
    for stage, (useful, written) in busy.items():
        table.add_row(stage, f"{useful:.1f}", f"{written:.1f}")
    console.print(table)
    shard = busy.pop("shard")[0]  # in the flow's own process
    useful = shard + sum(seconds for seconds, _ in busy.values()) / num_cores()
    return {
        "seconds": seconds,
        "overhead_seconds": seconds - useful,
        "rerun_seconds": rerun,
        "peak_bytes": memory.peak_bytes,
    }


def busy_seconds(root: Path) -> dict[str, tuple[float, float]]:
    """By stage the seconds of reading and computing, and of writing, of all its artifacts."""
    found: dict[str, tuple[float, float]] = {}
    for stage in STAGES:
        clocks = [json.loads(record.read_text())["seconds"] for record in root.glob(f"{stage}/*/record.json")]
        read, computed, written = (sum(c.get(key, 0.0) for c in clocks) for key in ("read", "compute", "write"))
        if clocks:
            found[stage] = read + computed, written
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--recipe", choices=RECIPES, default=RECIPES[0])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, served(Path(name) / "prefect") as service:
        few = distil(service, args.recipe, Path(name) / "few", max(args.classes // 10, 1))
        many = distil(service, args.recipe, Path(name) / "many", args.classes)
    growth = many.pop("peak_bytes") / few.pop("peak_bytes")
    console.print(f"a tenth of the classes: {few}")
    print(json.dumps({**many, "flow_growth": growth, "classes": args.classes, "recipe": args.recipe}))


if __name__ == "__main__":
    main()
