"""What `ddoq tune` tries: where decoding starts and how hard it guides, each value with each."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from storage.errors import UsageError
from tasks.recipe.cells import RANDOM
from tasks.recipe.recipe import MethodConfig, Recipe
from tasks.recipe.settings import Noise, Scale, Seed, Settings, Steps, Strength, each_once

Once = AfterValidator(each_once)


class Grid(Settings):
    """Values of the settings of decode, the recipe's own where there are none."""

    strength: Annotated[tuple[Strength, ...], Once] = (0.5, 0.7, 0.85, 1.0)
    guidance_scale: Annotated[tuple[Scale, ...], Once] = (1.5, 3.0)
    num_steps: Annotated[tuple[Steps, ...], Once] = ()
    noise: Annotated[tuple[Noise, ...], Once] = ()
    num_candidates: Annotated[tuple[Steps, ...], Once] = ()
    seeds: Annotated[tuple[Seed, ...], Once] = Field((0, 1, 2), min_length=2)

    def tried(self) -> dict[str, dict[str, Any]]:
        """Every combination, by a name for its method."""
        axes = {name: values for name, values in self.model_dump(exclude={"seeds"}).items() if values}
        found = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
        return {"_".join(f"{name}-{value}" for name, value in settings.items()): settings for settings in found}

    def recipe(self, recipe: Recipe, method: str | None = None) -> Recipe:
        """The recipe with these in the place of its methods, each a change of one, and real images at random.

        method  which is changed; if not given, the first that decodes through the prior
        Raises UsageError where there is none, or nothing is kept to judge by.
        """
        if not recipe.data.tune_fraction:
            raise UsageError(
                f"{recipe.name} keeps no training images to choose by: set data.tune_fraction=0.1, for all of its runs"
            )
        changed = method or next(iter(recipe.through_prior), None)
        if changed not in recipe.through_prior:
            there = ", ".join(recipe.through_prior) or "none"
            raise UsageError(
                f"{changed!r} is no method of {recipe.name} that decodes through the prior: there is {there}"
            )
        own = recipe.methods[changed]
        methods = {
            name: own.model_copy(update={"decode": {**own.decode, **settings}}).model_dump()
            for name, settings in self.tried().items()
        }
        methods[RANDOM] = MethodConfig(
            cluster={"method": RANDOM}, decode={"method": "medoid"}, weights="uniform"
        ).model_dump()
        return recipe.with_changes({"seeds": self.seeds, "methods": methods})
