"""Which cells a matrix has, and that each is the method it says."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from flows.catalogue import load_recipe
from tasks.recipe.cells import Cell
from tasks.recipe.matrix import Matrix, check_changes


def test_the_usual_matrix() -> None:
    cells = Matrix().cells(10)
    assert len(cells) == 3 * 3 * 3 + 3 + 1
    assert cells["exact-sqrt-diffusion"] == Cell("exact", "sqrt", "loss", "diffusion")
    assert cells["random-mass"] == Cell("random", "mass", "loss", "random")
    assert "stream-d4m-uniform-diffusion" in cells, "D4M is always there"


def test_at_one_image_per_class_there_is_only_the_mean() -> None:
    assert list(Matrix(quantizers=("stream",), weights=("mass",)).cells(1)) == [
        "exact-uniform-diffusion", "exact-uniform-autoencoder", "exact-uniform-medoid", "random-uniform",
    ]  # fmt: skip


def test_random_images_without_weights_are_always_there() -> None:
    assert list(Matrix(weights=("sqrt",), pictures=("random",)).cells(2)) == ["random-uniform", "random-sqrt"]
    assert list(Matrix(weights=("uniform",), pictures=("random",)).cells(2)) == ["random-uniform"]


def test_settings_that_a_matrix_takes_the_place_of_are_refused() -> None:
    check_changes(["decode.strength=0.2", "train.num_epochs=3"])
    with pytest.raises(ValueError, match=r"'train.weights_in=sampling'.* compares weights_in"):
        check_changes(["decode.strength=0.2", "train.weights_in=sampling"])


def test_weights_by_sampling_are_cells_of_their_own() -> None:
    matrix = Matrix(
        quantizers=("exact",), pictures=("medoid",), weights=("uniform", 0.25), weights_in=("loss", "sampling")
    )
    assert list(matrix.cells(5)) == ["exact-uniform-medoid", "exact-0.25-medoid", "exact-0.25-by-sampling-medoid"]


def test_a_cell_is_a_method_of_the_recipe() -> None:
    matrix = Matrix(ipc=(7,), seeds=(3, 4), weights=("sqrt", 0.25), weights_in=("sampling",))
    recipe = matrix.recipe(load_recipe("digits"), 7)
    assert (recipe.ipc, recipe.seeds) == (7, (3, 4))
    cluster, decode, weights, _ = recipe.settings_of("balanced-0.25-by-sampling-autoencoder")
    assert (cluster.method, decode.method, weights) == ("balanced", "autoencoder", 0.25)
    assert recipe.methods["balanced-0.25-by-sampling-autoencoder"].weights_in == "sampling"
    cluster, decode, weights, _ = recipe.settings_of("random-sqrt-by-sampling")
    assert (cluster.method, decode.method, weights) == ("random", "medoid", "sqrt")
    cluster, decode, weights, _ = recipe.settings_of("stream-d4m-uniform-diffusion")
    assert (cluster.method, decode.method, weights) == ("stream-d4m", "diffusion", "uniform")
    assert decode.strength == load_recipe("digits").decode.strength


def test_the_ways_of_others_are_pictures_and_quantisers() -> None:
    matrix = Matrix(
        ipc=(3,), quantizers=("divisive",), weights=("uniform",), pictures=("mgd3", "dmgd", "selection", "mosaic")
    )
    recipe = matrix.recipe(load_recipe("digits"), 3)
    decodes = {name: recipe.settings_of(name).decode for name in recipe.methods}
    assert list(decodes) == [f"divisive-uniform-{way}" for way in ("mgd3", "dmgd", "selection", "mosaic")]
    assert {decode.method for decode in decodes.values()} == {"diffusion"}
    mgd3, dmgd, selection, mosaic = decodes.values()
    assert (mgd3.centroid_guidance, mgd3.centroid_guidance_steps, mgd3.centroid_guidance_to) == (0.1, (0, 0.5), "own")
    assert (dmgd.centroid_guidance_steps, dmgd.centroid_guidance_to) == ((0.6, 0.9), "transport")
    assert (selection.num_candidates, mosaic.mosaic) == (8, 2)


def test_given_sets_are_cells_at_their_own_number_of_images() -> None:
    row = {"ipc": 3, "decode": {"method": "given", "path": "x"}}
    matrix = Matrix.model_validate(
        {"ipc": (1, 3), "pictures": ("random",), "weights": ("uniform",), "given": {"x": row}}
    )
    assert list(matrix.cells(1)) == ["random-uniform"] and list(matrix.cells(3)) == ["x", "random-uniform"]
    assert matrix.only_given and not matrix.recipe(load_recipe("digits"), 3).quantises
    with pytest.raises(ValueError, match=r"x has 3 images per class, not \(1,\): add --ipc 3"):
        Matrix.model_validate({"ipc": (1,), "given": {"x": row}})
    with pytest.raises(ValueError, match="x is no given set"):
        Matrix.model_validate({"ipc": (3,), "given": {"x": {"ipc": 3, "decode": {"method": "medoid"}}}})


@pytest.mark.parametrize(
    "wrong", [{"seeds": (0,)}, {"ipc": ()}, {"ipc": (0,)}, {"pictures": ("photos",)}, {"seeds": (1, 1)}]
)
def test_what_cannot_be_compared(wrong: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValidationError):
        Matrix.model_validate(wrong)
