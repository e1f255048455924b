"""`ddoq serve`: the flows of recipes as deployments, and Prefect's runner, which does what is asked of them here.

Imports Prefect: a server must have been chosen before.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType
from rich.console import Console

from flows import compare, distill, tune
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import COMPARE, STAGES

POLL_SECONDS = 2  # Prefect's own 10 are long for who waits at a terminal
AT_ONCE = 1  # runs, of which each takes all cores


class _Runner(Runner):
    def handle_sigterm(self, *_: Any) -> None:
        """End as with Ctrl-C, which ends what runs."""
        signal.raise_signal(signal.SIGINT)


def serve(console: Console, recipes: list[Recipe], root: Path, secret: str) -> None:
    """Deploy the recipes and do their runs in a root, until Ctrl-C or SIGTERM; what runs then is ended too."""
    runner = _Runner(limit=AT_ONCE, query_seconds=POLL_SECONDS, pause_on_shutdown=False)
    with console.status("deploying the recipes"):
        for recipe in recipes:
            for deployment in deployments(recipe, root):
                runner.add_deployment(deployment)
    console.print(told(recipes, secret), soft_wrap=True, highlight=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's script lets what runs behind it ignore SIGINT
    try:
        asyncio.run(runner.start())
    except KeyboardInterrupt:
        console.print("ended; a run that was cut off goes on when it is asked for again")


def deployments(recipe: Recipe, root: Path) -> list[RunnerDeployment]:
    """All that can be run of a recipe, each with it and the root as parameters, which a run may be given others for."""
    parameters = {"recipe": recipe.model_dump(mode="json", exclude_defaults=True), "root": str(root.absolute())}
    modules = {"distill": distill, COMPARE: compare, tune.TUNE: tune, **dict.fromkeys(STAGES, distill)}
    return [_deployment(getattr(module, name), recipe.name, parameters) for name, module in modules.items()]


def _deployment(flow: Flow[..., Any], recipe: str, parameters: dict[str, Any]) -> RunnerDeployment:
    made = flow.to_deployment(
        recipe, parameters=parameters, tags=["ddoq", recipe, flow.name], entrypoint_type=EntrypointType.MODULE_PATH
    )
    assert isinstance(made, RunnerDeployment)
    made.entrypoint = f"{flow.__module__}.{flow.name}"  # that of a stage is a module's attribute alone
    return made


def told(recipes: list[Recipe], secret: str) -> str:
    """Where the pages are, and what to type in another terminal."""
    api = os.environ["PREFECT_API_URL"]
    names = ", ".join(recipe.name for recipe in recipes)
    prefect = shlex.quote(str(Path(sys.executable).with_name("prefect")))
    return f"""\
Prefect's pages: {api.removesuffix("/api")}{secret and f" (password: {secret})"}
In another terminal:
  export PREFECT_API_URL={shlex.quote(api)}{secret and f" PREFECT_API_AUTH_STRING={secret}"}
  {prefect} deployment run distill/{recipes[0].name} -p ipc=5 --watch
Deployed are distill, compare, tune and every stage of {names}. Ctrl-C ends it."""
