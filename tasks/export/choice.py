"""What is exported: a method of a run or a folder of pictures, with the weights and the teacher that are its own."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from storage.artifact import Artifact, NotDone
from storage.errors import UsageError
from tasks.inputs.runs import KeptRun, kept_run, kept_runs
from tasks.recipe.settings import Weighting


class Choice(NamedTuple):
    """Pictures, the rule of their weights, whose logits go with them, why these, where nobody asked for them, and the
    run and the method that they are of, where that is known."""

    decode: Artifact
    weights: Weighting
    teacher: Artifact | None
    reason: str = ""
    run: KeptRun | None = None
    method: str | None = None


def choose(
    what: str,
    root: Path,
    *,
    method: str | None = None,
    weights: Weighting | None = None,
    teacher: Path | None = None,
) -> Choice:
    """The pictures of a recipe's newest run in a root, or of a folder, with their own weights and teacher.

    method, weights, teacher  instead of the method that the run prefers, the method's rule, the run's teacher
    Raises UsageError for what is none of these or ambiguous, NotDone for what is not finished.
    """
    run, reason, name = kept_run(root / what), "", None
    if run is not None:
        name = method or run.chosen
        if not method:
            why = "which training images kept for choosing prefer" if run.preferred else "the recipe's first"
            reason = f"of the method {name}, {why}"
        decode, rules = _pictures_of(run, name, root), [run.recipe.settings_of(name).weights]
    else:
        folder = Path(what)
        if not folder.exists():
            raise NotDone(f"{what!r} is neither a recipe that was run in {root} nor a folder of pictures: run it first")
        if method:
            raise UsageError(f"--method {method} goes with a recipe's name, and {what!r} is a folder: leave it out")
        decode = Artifact.open(folder)
        run, rules = _made_for(folder, decode)
    if weights is None and len(set(rules)) != 1:
        found = f"of methods with weights {', '.join(map(str, rules))}" if rules else "of no run that is kept"
        raise UsageError(f"{what} holds pictures {found}: say which rule with --weights")
    judge = Artifact.open(teacher) if teacher else _teacher_of(run, decode.root)
    return Choice(decode, rules[0] if weights is None else weights, judge, reason, run, name)


def _pictures_of(run: KeptRun, method: str, root: Path) -> Artifact:
    if method not in run.recipe.methods:
        raise UsageError(
            f"the run of {run.recipe.name} has no method {method!r}: it has {', '.join(run.recipe.methods)}"
        )
    pictures = run.pictures_of(method)
    assert pictures is not None, "a run is kept when all its artifacts are made"
    return Artifact.open(root / pictures)


def _made_for(folder: Path, decode: Artifact) -> tuple[KeptRun | None, list[Weighting]]:
    """The run that a folder of pictures is of, and the rules of the methods that it is of.

    A link like runs/digits/images-d4m-0 names its method; a digest may be the pictures of several, in several runs.
    """
    beside = kept_run(folder.absolute().parent)
    if beside and folder.name in beside.artifacts:
        named = [name for name in beside.recipe.methods if folder.name.startswith(f"images-{name}-")]
        method = max(named, key=len, default=None)
        return beside, [beside.recipe.settings_of(method).weights] if method else []
    runs = [run for run in kept_runs(decode.root) if any(run.methods_with(str(decode)))]
    rules = [method.weights for run in runs for method in run.methods_with(str(decode))]
    return next(iter(runs), None), list(dict.fromkeys(rules))


def _teacher_of(run: KeptRun | None, root: Path) -> Artifact | None:
    teacher = run.artifacts.get("teacher") if run else None
    return Artifact.open(root / teacher) if teacher else None
