"""One cell of a comparison: a way to make and to weigh a distilled set."""

from __future__ import annotations

from typing import NamedTuple

GIVEN = "given"  # somebody's set: the cell's quantiser is its name, the weights are its own
RANDOM = "random"  # real images at random: no quantiser chooses them, the masses of their cells weigh them


class Cell(NamedTuple):
    """One way to make and to weigh a distilled set."""

    quantizer: str
    weights: str
    weights_in: str
    pictures: str

    @property
    def name(self) -> str:
        """Of the method in a recipe, e.g. exact-sqrt-diffusion; of a given set its own."""
        if self.is_given:
            return self.quantizer
        where = [] if self.weights_in == "loss" else [f"by-{self.weights_in}"]
        return "-".join([self.quantizer, self.weights, *where, *([] if self.is_random else [self.pictures])])

    @property
    def is_given(self) -> bool:
        """Whether it is a set that somebody else made."""
        return self.pictures == GIVEN

    @property
    def is_random(self) -> bool:
        """Whether the pictures are real images at random."""
        return self.pictures == RANDOM


D4M = Cell("stream-d4m", "uniform", "loss", "diffusion")
RANDOM_IMAGES = Cell(RANDOM, "uniform", "loss", RANDOM)
