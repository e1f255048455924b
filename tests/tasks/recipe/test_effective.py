"""What makes no difference for classes of some sizes is left out, so that equal cells are made once."""

from __future__ import annotations

import pytest

from flows.catalogue import load_recipe
from tasks.recipe.recipe import Recipe

METHODS = {
    "d4m": {"cluster": {"method": "stream-d4m"}, "weights": "uniform"},
    "stream": {"cluster": {"method": "stream"}, "weights": "uniform"},
    "balanced": {"cluster": {"method": "balanced"}, "weights": "mass"},
    "even": {"cluster": {"method": "balanced"}, "weights": "uniform"},
    "exact": {"weights": "mass"},
}


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("digits").with_changes({"ipc": 10, "methods": METHODS})


def test_where_k_divides_every_class_d4m_is_the_stream_and_balanced_cells_weigh_the_same(recipe: Recipe) -> None:
    of = {name: recipe.effective(name, [1300, 500]) for name in METHODS}
    assert of["d4m"] == of["stream"] and of["balanced"] == of["even"]
    assert of["exact"] == recipe.settings_of("exact")


def test_where_one_class_has_a_rest_all_is_as_it_was_set(recipe: Recipe) -> None:
    assert all(recipe.effective(name, [1300, 501]) == recipe.settings_of(name) for name in METHODS)


def test_of_mosaics_the_tiles_are_to_divide_a_class(recipe: Recipe) -> None:
    mosaics = recipe.with_changes({"decode.mosaic": 2})
    assert mosaics.num_points("d4m") == 40
    assert mosaics.effective("d4m", [1300, 500]) == mosaics.settings_of("d4m")
    assert mosaics.effective("d4m", [1200]) == mosaics.effective("stream", [1200])
