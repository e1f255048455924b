"""The method as a graph of artifacts: arXiv 2501.07681 from the images to the students' accuracy. Wiring alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from storage.artifact import Artifact
from storage.errors import UsageError
from tasks import (
    autoencoder,
    cluster,
    compare,
    decode,
    encode,
    evaluate,
    label,
    measure,
    prior,
    report,
    sample,
    shard,
    teacher,
    train,
    view,
)
from tasks.inputs.checks import check_models, check_prior
from tasks.inputs.data import check_counts
from tasks.inputs.plan import Work
from tasks.inputs.sizes import sized
from tasks.inputs.stores import indexed
from tasks.recipe.matrix import Matrix
from tasks.recipe.protocols import resolve
from tasks.recipe.recipe import Recipe


class Works(Protocol):
    """What a graph's works are added to: a run (flows.run), or a plan of one (flows.plan)."""

    root: Path

    def add(self, work: Work) -> Artifact:
        """Take the work on, once. Returns what it will make."""

    def add_now(self, work: Work) -> Artifact:
        """The same of what must be there before others can be planned."""


@dataclass(frozen=True)
class Base:
    """What all methods, seeds and numbers of images per class share.

    recipe  with the steps that its minutes leave to the models
    labels  where those of students come from, as in a protocol
    """

    recipe: Recipe
    data: Artifact
    latents: dict[str, Artifact]  # "encode", where a method has prototypes
    models: dict[str, Artifact]  # then "autoencoder", and "prior" where a method decodes through it
    judge: dict[str, Artifact]  # "teacher", where there is one
    samples: dict[str, Artifact]  # "sample", where a method decodes through the prior and a teacher can judge it
    held_out: dict[str, Artifact]  # views of the images that students are judged by, "val" and, if any, "tune"
    labels: str

    @property
    def named(self) -> dict[str, Artifact]:
        """By a name for people."""
        return {
            "shard": self.data,
            **self.latents,
            **self.models,
            **self.judge,
            **self.samples,
            **{f"view-{split}": view for split, view in self.held_out.items()},
        }


@dataclass(frozen=True)
class Outcome:
    """What the methods of a recipe come to.

    named     every artifact by a name for people
    scores    of the stage evaluate, by "method/architecture/seed"
    choices   the same on training images kept for choosing, if any
    measures  of the stage measure, by "method/seed"
    """

    named: dict[str, Artifact] = field(default_factory=dict)
    scores: dict[str, Artifact] = field(default_factory=dict)
    choices: dict[str, Artifact] = field(default_factory=dict)
    measures: dict[str, Artifact] = field(default_factory=dict)


def distillation(run: Works, recipe: Recipe) -> tuple[Recipe, dict[str, Artifact]]:
    """The recipe with nothing left open, and its every artifact by a name for people. Adds the jobs that complete them
    to the run."""
    base = _base(run, recipe, ("val", "tune"))
    recipe, found = base.recipe, _methods(run, base.recipe, base)
    measures = {f"measure/{name}": artifact for name, artifact in found.measures.items()}
    choices = {f"tune/{name}": artifact for name, artifact in found.choices.items()}
    page = run.add(report.plan(recipe, {**found.scores, **choices, **measures, **base.samples}, run.root))
    return recipe, base.named | found.named | {"report": page}


def comparison(run: Works, recipe: Recipe, matrix: Matrix) -> tuple[Artifact, dict[int, dict[str, Artifact]]]:
    """The comparison of the matrix's cells, which share every artifact that is equal, and by images per class what it
    compares, by a name for people. Adds the jobs to the run."""
    recipe = matrix.recipe(recipe, max(matrix.ipc))
    base = _base(run, recipe, ("val",))
    recipe = base.recipe
    parents: dict[str, Artifact] = {}
    named: dict[int, dict[str, Artifact]] = {}
    for ipc in matrix.ipc:
        found = _methods(run, matrix.recipe(recipe, ipc), base)
        named[ipc] = base.named | found.named
        parents |= {f"{ipc}/{name}": artifact for name, artifact in found.scores.items()}
        parents |= {f"{ipc}/measure/{name}": artifact for name, artifact in found.measures.items()}
    return run.add(compare.plan(recipe, matrix, parents, run.root)), named


def tuning(run: Works, recipe: Recipe) -> Outcome:
    """The recipe's methods judged by training images that were kept for choosing. Adds the jobs to the run."""
    base = _base(run, recipe, ("tune",))
    if not base.held_out:
        raise UsageError(f"data.tune_fraction={recipe.data.tune_fraction} keeps no image of classes so small: set more")
    return _methods(run, base.recipe, base)


def _base(run: Works, recipe: Recipe, splits: tuple[str, ...]) -> Base:
    """What all share, with students judged on those of these splits that have images."""
    data, index = indexed(run.add_now(shard.plan(recipe, run.root)))
    check_counts(recipe, index.counts("train"))
    check_models(recipe)
    check_prior(recipe, index.classes)
    recipe = sized(recipe, index, run.root)
    protocol = resolve(recipe.train, recipe.ipc, len(index.classes))
    training = recipe.prior.train if recipe.through_prior else None  # None where the prior is given, or not asked for
    models = {"autoencoder": run.add(autoencoder.plan(recipe, data))} if recipe.quantises else {}
    if recipe.through_prior and not training:
        models["prior"] = run.add(prior.plan(recipe, data, {}))  # early: one that cannot be had is told at once
    latents = {"encode": run.add(encode.plan(recipe, data, models["autoencoder"]))} if models else {}
    judge = {"teacher": _teacher(run, recipe, data)} if protocol.labels != "hard" or recipe.selects else {}
    if training:
        seen = dict(latents)
        if training.flip:
            seen["mirrored"] = run.add(encode.plan(recipe, data, models["autoencoder"], mirrored=True))
        models["prior"] = run.add(prior.plan(recipe, data, seen))
    samples = {}
    if "prior" in models and judge and "val" in splits:
        samples["sample"] = run.add(sample.plan(recipe, latents["encode"], {**models, **judge}))
    held_out = {
        split: run.add(view.plan(recipe, data, split, protocol.center_crop))
        for split in splits
        if len(index.rows(split))
    }
    return Base(recipe, data, latents, models, judge, samples, held_out, protocol.labels)


def _teacher(run: Works, recipe: Recipe, data: Artifact) -> Artifact:
    """The teacher, and before it the view that it is trained on, which a teacher that is there can do without."""
    training = view.plan(recipe, data, "train")
    seen = None if recipe.teacher.weights else training.artifact
    works = [teacher.plan(recipe, data, seen, member) for member in recipe.teacher.members]
    if any(work.reads and not work.artifact.is_done() for work in works):
        run.add(training)
    members = [run.add(work) for work in works]
    return members[0] if recipe.teacher.is_whole else run.add(teacher.plan_ensemble(recipe, data, members))


def _methods(run: Works, recipe: Recipe, base: Base) -> Outcome:
    found = Outcome()
    for seed in recipe.seeds:  # first, so that a long comparison that is cut short has some seeds whole
        for method in recipe.methods:
            _method(run, recipe, base, method, seed, found)
    return found


def _method(run: Works, recipe: Recipe, base: Base, method: str, seed: int, found: Outcome) -> None:
    draw, decoding = recipe.draw_of(seed), recipe.settings_of(method).decode
    labels = "own" if decoding.labels == "own" else base.labels
    made_of = base.data
    if decoding.quantises:
        made_of = run.add(cluster.plan(recipe, method, draw, base.latents["encode"]))
        found.named[f"prototypes-{method}-{draw}"] = made_of
    pictures = run.add(decode.plan(recipe, method, draw, made_of, {**base.models, **base.judge}))
    labelled = {"decode": pictures, **(base.judge if labels in ("online", "stored") else {})}
    if labels == "stored":
        labelled = {"decode": pictures, "label": run.add(label.plan(recipe, method, seed, base.data, labelled))}
        found.named[f"labels-{method}-{seed}"] = labelled["label"]
    for architecture in recipe.train.architectures:
        student = run.add(train.plan(recipe, method, architecture, seed, base.data, labelled))
        for split, held_out in base.held_out.items():
            score = run.add(evaluate.plan(base.data, student, held_out))
            (found.scores if split == "val" else found.choices)[f"{method}/{architecture}/{seed}"] = score
    if "val" in base.held_out:
        found.measures[f"{method}/{seed}"] = run.add(measure.plan(recipe, method, draw, base.data, pictures))
    found.named[f"images-{method}-{draw}"] = pictures
