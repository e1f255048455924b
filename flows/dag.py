"""The method as a graph of artifacts: arXiv 2501.07681 from the images to the accuracy of the students."""

from __future__ import annotations

from dataclasses import dataclass

from ddoq_core.train.protocol import Protocol
from flows.run import Run
from storage.artifact import Artifact
from tasks import autoencoder, cluster, compare, decode, encode, label, measure, prior, report, shard, teacher, train
from tasks.inputs.checks import check_prior
from tasks.recipe.matrix import Matrix
from tasks.recipe.protocols import resolve
from tasks.recipe.settings import COMPARE, Recipe


@dataclass(frozen=True)
class Base:
    """What all methods, seeds and numbers of images per class share."""

    index: Artifact
    model: Artifact
    latents: Artifact
    diffusion: dict[str, Artifact]  # the prior, where a method decodes through it
    labellers: dict[str, Artifact]  # the teacher, unless students learn the classes

    @property
    def named(self) -> dict[str, Artifact]:
        """By a name for people."""
        shared = {"shard": self.index, "autoencoder": self.model, "encode": self.latents}
        return shared | self.diffusion | self.labellers


@dataclass(frozen=True)
class Distilled:
    """A recipe's methods: every artifact by a name for people, and what the students and the sets are found to be.

    scores    of the stage evaluate, by "method/architecture/seed"
    measures  of the stage measure, by "method/seed"
    """

    named: dict[str, Artifact]
    scores: dict[str, Artifact]
    measures: dict[str, Artifact]


def distillation(run: Run, recipe: Recipe) -> dict[str, Artifact]:
    """Every artifact of the recipe, by a name for people. Adds the jobs that complete them to the run."""
    base = _base(run, recipe)
    found = _methods(run, recipe, base)
    return base.named | found.named | {"report": _report(run, recipe, found)}


def comparison(run: Run, recipe: Recipe, matrix: Matrix) -> Artifact:
    """The comparison of the matrix's cells, which share every artifact that is equal. Adds the jobs to the run."""
    recipe = matrix.recipe(recipe, max(matrix.ipc))
    base = _base(run, recipe)
    parents: dict[str, Artifact] = {}
    for ipc in matrix.ipc:
        found = _methods(run, matrix.recipe(recipe, ipc), base)
        parents |= {f"{ipc}/{name}": artifact for name, artifact in found.scores.items()}
        parents |= {f"{ipc}/measure/{name}": artifact for name, artifact in found.measures.items()}
    settings = {"recipe": recipe.model_dump(mode="json"), "matrix": matrix.model_dump(mode="json")}
    artifact = Artifact(run.root, COMPARE, compare.VERSION, settings, parents)
    return run.add(artifact, compare.compare, recipe, matrix)


def _base(run: Run, recipe: Recipe) -> Base:
    index = _shard(run, recipe)
    model = _autoencoder(run, recipe, index)
    latents = _encode(run, recipe, index, model)
    needs_teacher = resolve(recipe.train, recipe.ipc, _num_classes(run)).labels != "hard"
    labellers = {"teacher": _teacher(run, recipe, index)} if needs_teacher else {}
    diffusion = {"prior": _prior(run, recipe, index, latents)} if recipe.through_prior else {}
    return Base(index, model, latents, diffusion, labellers)


def _methods(run: Run, recipe: Recipe, base: Base) -> Distilled:
    found = Distilled({}, {}, {})
    for seed in recipe.seeds:  # first, so that a long comparison that is cut short has some seeds whole
        for method, own in recipe.methods.items():
            protocol = resolve(recipe.train, recipe.ipc, _num_classes(run), own.weights_in)
            draw = seed if recipe.redistil else recipe.seeds[0]
            prototypes = _cluster(run, recipe, base.latents, method, draw)
            pictures = _decode(run, recipe, base, prototypes, method, draw)
            found.named[f"prototypes-{method}-{draw}"] = prototypes
            found.named[f"images-{method}-{draw}"] = pictures
            parents = {"shard": base.index, "decode": pictures}
            found.measures[f"{method}/{seed}"] = _measure(run, recipe, parents, method, draw)
            parents = parents | base.labellers
            if protocol.labels == "stored":
                labels = _label(run, recipe, parents, protocol, method, seed)
                found.named[f"labels-{method}-{seed}"] = labels
                parents = {"shard": base.index, "decode": pictures, "label": labels}
            for architecture in recipe.train.architectures:
                student = _train(run, recipe, parents, protocol, method, architecture, seed)
                found.scores[f"{method}/{architecture}/{seed}"] = _evaluate(run, recipe, base.index, student)
    return found


def _shard(run: Run, recipe: Recipe) -> Artifact:
    artifact = shard.shard_artifact(run.root, recipe.data)
    run.add_now(artifact, shard.shard, recipe.data)
    identified, run.index = shard.indexed(artifact)
    shard.check_counts(recipe.ipc, run.index.counts("train"))
    check_prior(recipe, run.index.classes)
    return identified


def _autoencoder(run: Run, recipe: Recipe, index: Artifact) -> Artifact:
    config, images = recipe.autoencoder, recipe.images.for_encoding
    settings = {"autoencoder": config.model_dump(), "images": images.model_dump()}
    artifact = Artifact(run.root, "autoencoder", autoencoder.VERSION, settings, {"shard": index})
    return run.add(artifact, autoencoder.autoencoder, config, images, gpu=True)


def _encode(run: Run, recipe: Recipe, index: Artifact, model: Artifact) -> Artifact:
    config, images = recipe.encode, recipe.images.for_encoding
    parents = {"shard": index, "autoencoder": model}
    artifact = Artifact(run.root, "encode", encode.VERSION, encode.identity(config, images), parents)
    assert run.index is not None
    return run.add(
        artifact,
        encode.encode,
        config,
        images,
        per_class=True,
        units=encode.num_units(run.index),
        gpu=True,
        num_images=list(run.index.counts("train").values()),
    )


def _teacher(run: Run, recipe: Recipe, index: Artifact) -> Artifact:
    config, images = recipe.teacher, recipe.images.for_training
    settings = {"teacher": config.model_dump(), "images": images.model_dump()}
    artifact = Artifact(run.root, "teacher", teacher.VERSION, settings, {"shard": index})
    return run.add(artifact, teacher.teacher, config, images, gpu=True)


def _prior(run: Run, recipe: Recipe, index: Artifact, latents: Artifact) -> Artifact:
    config = recipe.prior
    parents = {"encode": latents} if config.train else {"shard": index}
    artifact = Artifact(run.root, "prior", prior.VERSION, {"prior": config.model_dump()}, parents)
    return run.add(artifact, prior.prior, config, gpu=True)


def _cluster(run: Run, recipe: Recipe, latents: Artifact, method: str, seed: int) -> Artifact:
    config, _, _ = recipe.settings_of(method)
    settings = {**config.model_dump(), "num_points": recipe.ipc, "seed": seed}
    artifact = Artifact(run.root, "cluster", cluster.VERSION, settings, {"encode": latents}, label=config.method)
    return run.add(artifact, cluster.cluster, config, recipe.ipc, seed, per_class=True, units=_num_classes(run))


def _decode(run: Run, recipe: Recipe, base: Base, prototypes: Artifact, method: str, seed: int) -> Artifact:
    _, config, _ = recipe.settings_of(method)
    parents = {"cluster": prototypes}
    if config.method != "medoid":
        parents["autoencoder"] = base.model
    if config.method == "diffusion":
        parents |= base.diffusion
    images = recipe.images.for_training
    settings = {**decode.identity(config, seed), "size_px": images.size_px}
    artifact = Artifact(
        run.root, "decode", decode.VERSION, settings, parents, label=f"{prototypes.label}-{config.method}"
    )
    return run.add(
        artifact,
        decode.decode,
        config,
        images,
        seed,
        per_class=True,
        units=_num_classes(run),
        gpu=config.method != "medoid",
    )


def _measure(run: Run, recipe: Recipe, parents: dict[str, Artifact], method: str, seed: int) -> Artifact:
    _, _, weights = recipe.settings_of(method)
    images, architecture = recipe.images.for_training, recipe.train.architectures[0]
    settings = {"images": images.model_dump(), "architecture": architecture, "weights": weights}
    artifact = Artifact(run.root, "measure", measure.VERSION, settings, parents, label=f"{method}-{seed}")
    return run.add(artifact, measure.measure, images, architecture, weights, gpu=True)


def _label(
    run: Run, recipe: Recipe, parents: dict[str, Artifact], protocol: Protocol, method: str, seed: int
) -> Artifact:
    _, _, weights = recipe.settings_of(method)
    settings = label.identity(protocol, weights, seed)
    artifact = Artifact(run.root, "label", label.VERSION, settings, parents, label=f"{method}-{seed}")
    num_classes, num_images = _num_classes(run), recipe.num_pictures(method) * _num_classes(run)
    units = len(label.blocks_of(protocol.num_epochs, num_images, num_classes))
    return run.add(artifact, label.label, protocol, weights, seed, units=units, gpu=True)


def _train(
    run: Run,
    recipe: Recipe,
    parents: dict[str, Artifact],
    protocol: Protocol,
    method: str,
    architecture: str,
    seed: int,
) -> Artifact:
    _, _, weights = recipe.settings_of(method)
    settings = train.identity(protocol, architecture, weights, seed)
    artifact = Artifact(run.root, "train", train.VERSION, settings, parents, label=f"{method}-{architecture}-{seed}")
    return run.add(artifact, train.train, protocol, architecture, weights, seed, gpu=True)


def _evaluate(run: Run, recipe: Recipe, index: Artifact, student: Artifact) -> Artifact:
    images = recipe.images.for_training
    parents = {"shard": index, "train": student}
    artifact = Artifact(
        run.root, "evaluate", train.VERSION, {"images": images.model_dump()}, parents, label=student.label
    )
    return run.add(artifact, train.evaluate, images, gpu=True)


def _report(run: Run, recipe: Recipe, found: Distilled) -> Artifact:
    parents = found.scores | {f"measure/{name}": artifact for name, artifact in found.measures.items()}
    settings = {"recipe": recipe.model_dump(mode="json")}
    artifact = Artifact(run.root, "report", report.VERSION, settings, parents)
    return run.add(artifact, report.report, recipe, gpu=True)


def _num_classes(run: Run) -> int:
    assert run.index is not None
    return len(run.index.classes)
