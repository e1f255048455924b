"""`ddoq push`: an exported folder on a hub, by huggingface_hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from flows.artifacts import Root, console, export
from flows.errors import clear_errors
from storage.errors import UsageError, first_line
from storage.files import list_files

HOW = "make one that may write on the hub's page of tokens, and say `hf auth login`, or set HF_TOKEN"
REFUSED = {401: f"the token is not known: {HOW}", 403: f"the token may not write there: {HOW}"}


def push(
    what: Annotated[str, typer.Argument(help="a folder made by `ddoq export`, or a recipe that was run")],
    name: Annotated[str, typer.Argument(help="on the hub, e.g. somebody/digits-distilled")],
    private: Annotated[bool, typer.Option("--private", help="for you alone, if the repository is new")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="list the files and their sizes, and send nothing")
    ] = False,
    root: Root = Path("runs"),
) -> None:
    """Upload an exported set to a data set's repository, a teacher or a prior to a model's, which is made if need be.

    Of a recipe, what `ddoq export --to huggingface` writes is sent. HF_ENDPOINT names another hub. Read the licence in
    the folder's README.md first: what is made from others' images may not be yours to publish.
    """
    with _folder_of(what, root) as folder, clear_errors():
        kind = kind_of(folder)
        files = list_files(folder)
        sizes = [file.stat().st_size for file in files]
        if dry_run:
            for file, size in zip(files, sizes, strict=True):
                console.print(f"{size:>16,} bytes  {file.relative_to(folder)}", highlight=False, soft_wrap=True)
            told = f"{sum(sizes):>16,} bytes in {len(files)} files would go to the {kind} {name}"
        else:
            told = f"{len(files)} files, {sum(sizes):,} bytes: {upload(folder, name, kind, private)}"
    console.print(told, highlight=False, soft_wrap=True)


@contextmanager
def _folder_of(what: str, root: Path) -> Iterator[Path]:
    """The folder that is meant, or an export of the recipe that is meant, for as long as the block runs."""
    from tasks.inputs.runs import kept_run

    if kept_run(root / what) is None:
        yield Path(what)
        return
    with tempfile.TemporaryDirectory() as scratch:
        export(what, "huggingface", Path(scratch) / "set", root=root)
        yield Path(scratch) / "set"


def kind_of(folder: Path) -> str:
    """ "dataset" or "model", by the card of an exported folder. Raises UsageError for a folder without one of ours."""
    from tasks.export.handout import CARD

    try:
        _, front, _ = (folder / CARD).read_text().split("---\n", 2)
        told = yaml.safe_load(front)
        ours = "ddoq" in told["tags"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        ours = False
    if not ours:
        raise UsageError(
            f"{folder} holds no card of an export, and is no recipe that was run: make it by `ddoq export`"
        )
    return "model" if "pipeline_tag" in told else "dataset"


def upload(folder: Path, name: str, kind: str, private: bool = False) -> str:
    """Send a folder's files in one commit to a repository, which is made if it is not there. Returns its address.
    Raises UsageError for a missing or refused token, a name that cannot be, and a hub that cannot be reached."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if get_token() is None:
        raise UsageError(f"there is no token for the hub: {HOW}")
    hub = HfApi(library_name="ddoq")
    try:
        hub.create_repo(name, repo_type=kind, private=private or None, exist_ok=True)
        sent = hub.upload_folder(repo_id=name, folder_path=folder, repo_type=kind, commit_message="As ddoq exported it")
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise UsageError(f"{hub.endpoint}: {REFUSED.get(status, f'{status}: {first_line(error)}')}") from error
    except HFValidationError as error:
        raise UsageError(f"{name!r} cannot be a name on the hub: {first_line(error)}") from error
    except Exception as error:
        if not _is_of_transport(error):
            raise
        raise UsageError(f"{hub.endpoint} cannot be reached ({error}): try again, or set HF_ENDPOINT") from error
    return str(sent.repo_url)


def _is_of_transport(error: Any) -> bool:
    """Whether it is one of httpx, whichever of its versions huggingface_hub has taken."""
    return type(error).__module__.split(".")[0].startswith("httpx")
