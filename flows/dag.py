"""The method as a graph of artifacts: arXiv 2501.07681 from the images to the accuracy of the students."""

from __future__ import annotations

from flows.run import Run
from storage.artifact import Artifact
from tasks import autoencoder, cluster, decode, encode, label, prior, prior_check, report, shard, teacher, train
from tasks.protocols import Protocol, resolve


def distillation(run: Run) -> dict[str, Artifact]:
    """Every artifact of the recipe, by a name for people. Adds the jobs that complete them to the run."""
    recipe = run.recipe
    index = _shard(run)
    model = _autoencoder(run, index)
    latents = _encode(run, index, model)
    protocol = resolve(recipe.train, recipe.ipc, _num_classes(run))
    labellers = {} if protocol.labels == "hard" else {"teacher": _teacher(run, index)}
    diffusion = _prior(run, index, latents)
    found = {"shard": index, "autoencoder": model, "encode": latents, "prior": diffusion, **labellers}
    scores = {}
    for method in recipe.methods:
        for seed in recipe.seeds:
            draw = seed if recipe.redistil else recipe.seeds[0]
            prototypes = _cluster(run, latents, method, draw)
            pictures = _decode(run, prototypes, model, diffusion, method, draw)
            parents = {"shard": index, "decode": pictures, **labellers}
            if protocol.labels == "stored":
                labels = _label(run, parents, protocol, method, seed)
                parents = {"shard": index, "decode": pictures, "label": labels}
                found[f"labels-{method}-{seed}"] = labels
            for architecture in recipe.train.architectures:
                student = _train(run, parents, protocol, method, architecture, seed)
                scores[f"{method}/{architecture}/{seed}"] = _evaluate(run, index, student)
            found |= {f"prototypes-{method}-{draw}": prototypes, f"images-{method}-{draw}": pictures}
    found["report"] = _report(run, scores)
    return found


def _shard(run: Run) -> Artifact:
    artifact = shard.shard_artifact(run.root, run.recipe.data)
    run.add_now(artifact, shard.shard, run.recipe.data)
    identified, run.index = shard.indexed(artifact)
    shard.check_counts(run.recipe.ipc, run.index.counts("train"))
    prior_check.check_prior(run.recipe, run.index.classes)
    return identified


def _autoencoder(run: Run, index: Artifact) -> Artifact:
    config, images = run.recipe.autoencoder, run.recipe.images.for_encoding
    settings = {"autoencoder": config.model_dump(), "images": images.model_dump()}
    artifact = Artifact(run.root, "autoencoder", autoencoder.VERSION, settings, {"shard": index})
    return run.add(artifact, autoencoder.autoencoder, config, images, gpu=True)


def _encode(run: Run, index: Artifact, model: Artifact) -> Artifact:
    config, images = run.recipe.encode, run.recipe.images.for_encoding
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


def _teacher(run: Run, index: Artifact) -> Artifact:
    config, images = run.recipe.teacher, run.recipe.images.for_training
    settings = {"teacher": config.model_dump(), "images": images.model_dump()}
    artifact = Artifact(run.root, "teacher", teacher.VERSION, settings, {"shard": index})
    return run.add(artifact, teacher.teacher, config, images, gpu=True)


def _prior(run: Run, index: Artifact, latents: Artifact) -> Artifact:
    config = run.recipe.prior
    parents = {"encode": latents} if config.train else {"shard": index}
    artifact = Artifact(run.root, "prior", prior.VERSION, {"prior": config.model_dump()}, parents)
    return run.add(artifact, prior.prior, config, gpu=True)


def _cluster(run: Run, latents: Artifact, method: str, seed: int) -> Artifact:
    config, _, _ = run.recipe.settings_of(method)
    settings = {**config.model_dump(), "num_points": run.recipe.ipc, "seed": seed}
    artifact = Artifact(run.root, "cluster", cluster.VERSION, settings, {"encode": latents}, label=config.method)
    return run.add(artifact, cluster.cluster, config, run.recipe.ipc, seed, per_class=True, units=_num_classes(run))


def _decode(run: Run, prototypes: Artifact, model: Artifact, diffusion: Artifact, method: str, seed: int) -> Artifact:
    _, config, _ = run.recipe.settings_of(method)
    parents = {"cluster": prototypes}
    if config.method != "medoid":
        parents["autoencoder"] = model
    if config.method == "diffusion":
        parents["prior"] = diffusion
    images = run.recipe.images.for_training
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


def _label(run: Run, parents: dict[str, Artifact], protocol: Protocol, method: str, seed: int) -> Artifact:
    _, _, weights = run.recipe.settings_of(method)
    settings = label.identity(protocol, weights, seed)
    artifact = Artifact(run.root, "label", label.VERSION, settings, parents, label=f"{method}-{seed}")
    num_classes, num_images = _num_classes(run), run.recipe.num_pictures(method) * _num_classes(run)
    units = len(label.blocks_of(protocol.num_epochs, num_images, num_classes))
    return run.add(artifact, label.label, protocol, weights, seed, units=units)


def _train(
    run: Run, parents: dict[str, Artifact], protocol: Protocol, method: str, architecture: str, seed: int
) -> Artifact:
    _, _, weights = run.recipe.settings_of(method)
    settings = {
        **protocol.model_dump(exclude={"label_top_k"}),
        "architecture": architecture,
        "weights": weights,
        "seed": seed,
    }
    artifact = Artifact(run.root, "train", train.VERSION, settings, parents, label=f"{method}-{architecture}-{seed}")
    return run.add(artifact, train.train, protocol, architecture, weights, seed, gpu=True)


def _evaluate(run: Run, index: Artifact, student: Artifact) -> Artifact:
    images = run.recipe.images.for_training
    parents = {"shard": index, "train": student}
    artifact = Artifact(
        run.root, "evaluate", train.VERSION, {"images": images.model_dump()}, parents, label=student.label
    )
    return run.add(artifact, train.evaluate, images, gpu=True)


def _report(run: Run, scores: dict[str, Artifact]) -> Artifact:
    artifact = Artifact(run.root, "report", report.VERSION, {"recipe": run.recipe.model_dump(mode="json")}, scores)
    return run.add(artifact, report.report, run.recipe, gpu=True)


def _num_classes(run: Run) -> int:
    assert run.index is not None
    return len(run.index.classes)
