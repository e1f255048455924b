"""Stage prior: train the recipe's own small transformer, or check the weights it names."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from storage.cores import num_cores
from tasks.inputs.cached import DiskCheckpoint, made_once
from tasks.inputs.given import MODEL, WeightsError, expect_weights, facts_of, identity_of, stamp_weights
from tasks.inputs.models import ELSEWHERE, load_given_prior
from tasks.inputs.plan import Work
from tasks.inputs.stores import index_of, latents_of
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import GivenPrior, PriorConfig

VERSION = 2


def plan(recipe: Recipe, shard: Artifact, latents: Mapping[str, Artifact]) -> Work:
    """The prior of a recipe: given, or trained on latents, "encode" and, where it asks for them, "mirrored"."""
    config = recipe.prior
    if isinstance(config, GivenPrior):
        artifact = Artifact(shard.root, "prior", VERSION, {"prior": config.model_dump()}, {"shard": shard})
        expect_weights(artifact, config.weights)
    else:
        settings = {"prior": config.model_dump(), "kind": "rectified flow"}  # once it was a diffusion
        artifact = Artifact(shard.root, "prior", VERSION, settings, latents)
    return Work(artifact, prior, (config,), gpu=True)


@task(task_run_name="prior-{artifact.digest}")
@made_once
def prior(artifact: Artifact, config: PriorConfig) -> State | str:
    """Train a prior on the latents of all classes, or note which weights are used."""
    if isinstance(config, GivenPrior):
        return _note_weights(artifact, config)
    from ddoq_core.decode.training import train_prior

    clock = Clock()
    with clock("read"):
        classes = index_of(artifact).classes
        parts = [latents_of(parent).read_class(name) for parent in artifact.parents.values() for name in classes]
        labels = np.tile(np.arange(len(classes)), len(artifact.parents)).repeat([len(z) for z in parts])
        z = np.concatenate(parts)  # (n, C, S, S) float16
    with clock("compute"):
        settings = {**config.train.model_dump(exclude={"flip"}), "num_threads": num_cores()}
        transformer, losses = train_prior(z, labels, len(classes), **settings, checkpoint=DiskCheckpoint(artifact))
    with artifact.writing(MODEL, clock, {"losses": losses}) as folder:
        transformer.save_pretrained(folder)
    return str(artifact)


def _note_weights(artifact: Artifact, config: GivenPrior) -> str:
    clock = Clock()
    with clock("read"):
        stamps = stamp_weights(config.weights)
        told = {**identity_of(config.weights, stamps), "kind": config.kind}
        index = index_of(artifact)
        try:
            load_given_prior(config.kind, config.weights, index.classes)
        except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
            raise WeightsError(f"prior.weights={config.weights!r} cannot be used: {error}") from error
    with artifact.writing(MODEL, clock, facts_of(stamps)) as folder:
        (folder / ELSEWHERE).write_text(json.dumps(told))
    return str(artifact)
