"""What `ddoq tune` tries, as methods of a recipe."""

from __future__ import annotations

import pytest

from flows.catalogue import grid_of, load_recipe
from storage.errors import UsageError
from tasks.recipe.grid import Grid

KEPT = {"data.tune_fraction": 0.2}


def test_every_value_with_each_as_changes_of_one_method() -> None:
    recipe = load_recipe("digits").with_changes(
        {**KEPT, "methods": {"mine": {"weights": "mass", "decode": {"num_draws": 2}}}}
    )
    grid = Grid(strength=(0.5, 1.0), guidance_scale=(1.0, 3.0), noise=("cell",), seeds=(4, 5))
    tried = grid.recipe(recipe)
    assert tried.seeds == (4, 5) and len(tried.methods) == 2 * 2 * 1 + 1
    own = tried.settings_of("strength-0.5_guidance_scale-3.0_noise-cell")
    assert (own.decode.strength, own.decode.guidance_scale, own.decode.noise) == (0.5, 3.0, "cell")
    assert (own.decode.num_draws, own.weights, own.cluster) == (2, "mass", recipe.cluster)
    random = tried.settings_of("random")
    assert (random.cluster.method, random.decode.method, random.weights) == ("random", "medoid", "uniform")


def test_what_it_cannot_try() -> None:
    with pytest.raises(UsageError, match=r"digits keeps no training images to choose by: set data\.tune_fraction=0\.1"):
        Grid().recipe(load_recipe("digits"))
    with pytest.raises(
        UsageError, match=r"'medoids' is no method of digits that decodes through the prior: there is ddoq"
    ):
        Grid().recipe(load_recipe("digits").with_changes(KEPT), "medoids")
    with pytest.raises(UsageError, match=r"strength\.0=2\.0: .*less than or equal to 1"):
        grid_of({"strength": [2.0]})
    with pytest.raises(UsageError, match="name each value once"):
        grid_of({"num_steps": [5, 5]})
