"""What `ddoq compare` compares: quantisers × weights × where pictures come from, at several images per class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from pydantic import Field, PositiveInt, field_validator

from storage.errors import UsageError
from tasks.recipe.settings import MethodConfig, Recipe, Settings, Weighting

Quantizer = Literal["exact", "stream", "stream-d4m", "clvq", "balanced"]
Pictures = Literal["diffusion", "autoencoder", "medoid", "random"]
RANDOM = "random"  # real images at random: no quantiser chooses them, the masses of their cells weigh them
OWNED = {  # settings of a recipe that a matrix has in their place
    "ipc": "ipc", "seeds": "seeds", "methods": "quantizers", "cluster.method": "quantizers", "weights": "weights",
    "decode.method": "pictures", "train.weights_in": "weights_in",
}  # fmt: skip


class Cell(NamedTuple):
    """One way to make and to weigh a distilled set."""

    quantizer: str
    weights: str
    weights_in: str
    pictures: str

    @property
    def name(self) -> str:
        """Of the method in a recipe, e.g. exact-sqrt-diffusion."""
        where = [] if self.weights_in == "loss" else [f"by-{self.weights_in}"]
        return "-".join([self.quantizer, self.weights, *where, *([] if self.is_random else [self.pictures])])

    @property
    def is_random(self) -> bool:
        """Whether the pictures are real images at random."""
        return self.pictures == RANDOM

    def method(self) -> MethodConfig:
        """As a method of a recipe."""
        decode: dict[str, Any] = {"method": "medoid" if self.is_random else self.pictures}
        return MethodConfig(
            cluster={"method": self.quantizer}, decode=decode, weights=self.weights, weights_in=self.weights_in
        )


D4M = Cell("stream-d4m", "uniform", "loss", "diffusion")
RANDOM_IMAGES = Cell(RANDOM, "uniform", "loss", RANDOM)


class Matrix(Settings):
    """The cells: every combination of these, D4M's, and unweighted random images.

    At one image per class all weights are 1 and every quantiser finds the mean, so a kind of pictures is one cell.
    """

    ipc: tuple[PositiveInt, ...] = Field((1, 10), min_length=1, description="images per class")
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=2)
    quantizers: tuple[Quantizer, ...] = Field(("stream", "exact", "balanced"), min_length=1)
    weights: tuple[Weighting, ...] = Field(("uniform", "sqrt", "mass"), min_length=1)
    pictures: tuple[Pictures, ...] = Field(("diffusion", "autoencoder", "medoid", "random"), min_length=1)
    weights_in: tuple[Literal["loss", "sampling"], ...] = Field(
        ("loss",), min_length=1, description="loss, sampling, or both, for weights that are not uniform"
    )

    @field_validator("ipc", "seeds", "quantizers", "weights", "pictures", "weights_in")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("each value once")
        return values

    def cells(self, ipc: int) -> dict[str, Cell]:
        """By name, all that differ at this many images per class."""
        return {cell.name: cell for cell in self._cells(ipc)}

    def _cells(self, ipc: int) -> Iterator[Cell]:
        if ipc == 1:
            for pictures in self.pictures:
                yield Cell(RANDOM if pictures == RANDOM else "exact", "uniform", "loss", pictures)
            return
        if D4M.pictures in self.pictures:
            yield D4M
        for pictures in self.pictures:
            if pictures == RANDOM:
                yield RANDOM_IMAGES
            for quantizer in (RANDOM,) if pictures == RANDOM else self.quantizers:
                for weights in self.weights:
                    for where in self.weights_in if weights != "uniform" else ("loss",):
                        yield Cell(quantizer, str(weights), where, pictures)

    def recipe(self, recipe: Recipe, ipc: int) -> Recipe:
        """The recipe with the cells at this many images per class as its methods."""
        methods = {name: cell.method().model_dump() for name, cell in self.cells(ipc).items()}
        return recipe.with_changes({"ipc": ipc, "seeds": self.seeds, "methods": methods})


def check_changes(changes: Iterable[str]) -> None:
    """Raise UsageError for a setting of a recipe that a matrix takes the place of."""
    for name in changes:
        if name.split("=")[0] in OWNED:
            raise UsageError(
                f"a comparison does not take {name!r}: it compares {OWNED[name.split('=')[0]]}, which has an option of "
                "its own (see ddoq compare --help)"
            )
