"""The questions of a comparison, on accuracies whose answers are known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tasks.pages.effects import effects
from tasks.recipe.cells import Cell
from tasks.recipe.matrix import Matrix

WEIGHTS = {"uniform": 0.0, "sqrt": 0.02, "mass": 0.01}
QUANTIZERS = {"stream": 0.0, "exact": 0.03, "balanced": -0.01}
PICTURES = {"diffusion": 0.0, "autoencoder": 0.005, "medoid": -0.04}


def accuracies(noise: float = 1e-4) -> dict[Cell, np.ndarray]:
    """Each choice adds its own to the accuracy, a seed adds the same to all cells."""
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 0.05, 5)
    found = {
        Cell(q, w, "loss", p): 0.5 + seeds + QUANTIZERS[q] + WEIGHTS[w] + PICTURES[p]
        for q, w, p in product(QUANTIZERS, WEIGHTS, PICTURES)
    }
    found[Cell("stream-d4m", "uniform", "loss", "diffusion")] = 0.49 + seeds
    found[Cell("random", "uniform", "loss", "random")] = 0.3 + seeds
    return {cell: values + rng.normal(0, noise, 5) for cell, values in found.items()}


def test_known_differences_are_found() -> None:
    found = {row["question"]: row for row in effects(accuracies(), Matrix().levels)}
    expected = {
        "DDOQ − D4M": 0.03, "DDOQ with exact k-means − D4M": 0.06, "D4M − random images": 0.19,
        "DDOQ − random images": 0.22, "quantizer: exact − stream": 0.03, "quantizer: balanced − exact": -0.04,
        "weights: sqrt − uniform": 0.02, "weights: mass − sqrt": -0.01, "pictures: medoid − diffusion": -0.04,
    }  # fmt: skip
    assert {question: found[question]["mean"] for question in expected} == pytest.approx(expected, abs=3e-4)
    assert all(row["significant"] and row["low"] < row["mean"] < row["high"] for row in found.values())
    assert found["quantizer: exact − stream"]["pairs"] == 9


def test_cells_that_are_the_same_are_not_compared() -> None:
    values = accuracies()
    students = {cell: [f"{cell.name}-{seed}" for seed in range(5)] for cell in values}
    for cell in values:
        if cell.quantizer == "balanced":
            students[cell] = students[cell._replace(weights="uniform")]
    students[Cell("stream-d4m", "uniform", "loss", "diffusion")] = students[
        Cell("stream", "uniform", "loss", "diffusion")
    ]
    found = {row["question"]: row for row in effects(values, Matrix().levels, students)}
    assert found["weights: sqrt − uniform"]["pairs"] == 6, "of three quantisers, balanced cells all weigh the same"
    assert found["quantizer: balanced − exact"]["pairs"] == 9
    one = {cell: ["the same"] * 5 for cell in values}
    assert effects(values, Matrix().levels, one) == []


def test_noise_is_not_taken_for_a_difference() -> None:
    rng = np.random.default_rng(1)
    sure = 0
    for _ in range(60):
        values = {cell: rng.normal(0.5, 0.02, 5) for cell in accuracies()}
        sure += any(row["significant"] for row in effects(values, Matrix().levels))
    assert sure <= 8, "about one comparison in twenty"


def test_at_one_image_per_class_methods_are_one() -> None:
    values = {cell: np.full(3, 0.5) + 0.1 * k for k, cell in enumerate(Matrix().cells(1).values())}
    asked = [row["question"] for row in effects(values, Matrix().levels)]
    assert asked[0] == "DDOQ (here the same as D4M) − random images"
    assert {question.split(":")[0] for question in asked[1:]} == {"pictures"}


def test_questions_without_their_cells_are_not_asked() -> None:
    medoids = {
        cell: values for cell, values in accuracies().items() if cell.pictures == "medoid" and cell.weights == "sqrt"
    }
    assert [row["question"] for row in effects(medoids, Matrix().levels)] == [
        "quantizer: exact − stream", "quantizer: balanced − stream", "quantizer: balanced − exact",
    ]  # fmt: skip
