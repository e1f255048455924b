"""The newest run of a recipe, kept beside its links: the recipe as it was resolved, and its artifacts by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from storage.artifact import Artifact
from storage.files import read_checked, write_checked
from tasks.recipe.recipe import Method, Recipe

RUN = "run"


class KeptRun(BaseModel):
    """What a run was asked for, and the "<stage>/<digest>" of its artifacts by a name for people.

    preferred  the method that training images kept for choosing prefer
    """

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    artifacts: dict[str, str]
    preferred: str | None = None

    @property
    def chosen(self) -> str:
        """The method that is handed out where none is asked for: the preferred one, else the first."""
        return self.preferred or next(iter(self.recipe.methods))

    def pictures_of(self, method: str) -> str | None:
        """The pictures of a method's first seed."""
        return self.artifacts.get(f"images-{method}-{self.recipe.seeds[0]}")

    def methods_with(self, artifact: str) -> Iterator[Method]:
        """The methods, for any seed, that have this artifact as their pictures."""
        for name in self.recipe.methods:
            own = {self.artifacts.get(f"images-{name}-{seed}") for seed in self.recipe.seeds}
            if artifact in own:
                yield self.recipe.settings_of(name)


def keep_run(
    folder: Path, recipe: Recipe, artifacts: Mapping[str, Artifact], name: str = RUN, preferred: str | None = None
) -> None:
    """Write `<folder>/<name>.json`, whole or not at all."""
    named = {key: str(artifact) for key, artifact in artifacts.items()}
    kept = KeptRun(recipe=recipe, artifacts=named, preferred=preferred)
    write_checked(folder / f"{name}.json", kept.model_dump(mode="json"))


def kept_run(folder: Path) -> KeptRun | None:
    """The run that was kept in a folder `<root>/<recipe>`, None where there is none that can be read."""
    return _read(folder / f"{RUN}.json")


def kept_runs(root: Path) -> Iterator[KeptRun]:
    """All runs that are kept in a root, of `ddoq run` and of `ddoq compare`."""
    return (kept for path in sorted(root.glob("*/*.json")) if (kept := _read(path)))


def damaged_runs(root: Path) -> Iterator[str]:
    """A line for each kept run of a root that is gone or not as it was written."""
    for folder in sorted({link.parent for link in root.glob("*/*") if link.is_symlink()}):
        expected = {folder / f"{RUN}.json"} if (folder / "report").is_symlink() else set()
        for path in sorted(expected | {folder / f"{RUN}.json", *folder.glob("compare-*.json")}):
            if (path in expected or path.exists()) and _read(path) is None:
                yield f"damaged: {folder.name}, file {path.name}"


def _read(path: Path) -> KeptRun | None:
    try:
        return KeptRun.model_validate(read_checked(path))
    except (OSError, ValueError):
        return None
