"""Stage prior: train the recipe's own small diffusion transformer, or check the weights it names."""

from __future__ import annotations

import json

import numpy as np
from prefect import State, task

from storage.artifact import Artifact
from storage.clock import Clock
from tasks.inputs.cached import DiskCheckpoint, cached
from tasks.inputs.given import MODEL, WeightsError, expect_weights, facts_of, identity_of, stamp_weights
from tasks.inputs.models import ELSEWHERE, load_given_prior
from tasks.inputs.plan import Work
from tasks.inputs.stores import index_of, latents_of
from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import GivenPrior, PriorConfig

VERSION = 2


def plan(recipe: Recipe, shard: Artifact, latents: Artifact) -> Work:
    """The prior of a recipe, trained on its latents or given."""
    config = recipe.prior
    parents = {"shard": shard} if isinstance(config, GivenPrior) else {"encode": latents}
    artifact = Artifact(shard.root, "prior", VERSION, {"prior": config.model_dump()}, parents)
    expect_weights(artifact, config.weights)
    return Work(artifact, prior, (config,), gpu=True)


@task(task_run_name="prior-{artifact.digest}")
def prior(artifact: Artifact, config: PriorConfig) -> State | str:
    """Train a latent DiT on the latents of all classes, or note which weights are used."""
    if artifact.is_done():
        return cached(artifact)
    if isinstance(config, GivenPrior):
        return _note_weights(artifact, config)
    from ddoq_core.decode.training import train_prior

    clock = Clock()
    with clock("read"):
        latents = artifact.parents["encode"]
        index = index_of(latents)
        parts = [latents_of(latents).read_class(name) for name in index.classes]
        labels = np.repeat(np.arange(len(parts)), [len(z) for z in parts])
        z = np.concatenate(parts).astype(np.float32)  # (n, C, H, W)
    with clock("compute"):
        settings = config.train.model_dump()
        transformer, scheduler, losses = train_prior(
            z, labels, len(parts), **settings, checkpoint=DiskCheckpoint(artifact)
        )
    with artifact.writing(MODEL, clock, {"losses": losses}) as folder:
        transformer.save_pretrained(folder / "transformer")
        scheduler.save_pretrained(folder / "scheduler")
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
