"""What `ddoq compare` compares: quantisers × weights × where pictures come from, at several images per class, and sets
that somebody else made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from storage.errors import UsageError
from tasks.recipe.cells import D4M, GIVEN, RANDOM, RANDOM_IMAGES, Cell
from tasks.recipe.recipe import MethodConfig, Recipe, check_method_name
from tasks.recipe.settings import DecodeConfig, Quantizer, Settings, Weighting

Pictures = Literal["diffusion", "autoencoder", "medoid", "member", "random", "selection", "mosaic", "mgd3", "dmgd"]
WAYS: dict[str, dict[str, Any]] = {  # of making pictures through the prior, as others do, beside the recipe's own
    "selection": {"num_candidates": 8},  # RDED, CaO2
    "mosaic": {"mosaic": 2},  # RDED, IDC
    "mgd3": {"sampler": "ddpm", "centroid_guidance": 0.1, "centroid_guidance_steps": (0.0, 0.5)},  # its numbers
    "dmgd": {
        "sampler": "ddpm", "centroid_guidance": 0.1, "centroid_guidance_steps": (0.6, 0.9),
        "centroid_guidance_to": "transport",
    },
}  # fmt: skip
OWNED = {  # settings of a recipe that a matrix has in their place
    "ipc": "ipc", "seeds": "seeds", "methods": "quantizers", "cluster.method": "quantizers", "weights": "weights",
    "decode.method": "pictures", "train.weights_in": "weights_in",
}  # fmt: skip


class GivenRow(Settings):
    """A set that somebody else made: its images per class, and how it is read."""

    ipc: PositiveInt
    decode: DecodeConfig


class Matrix(Settings):
    """The cells: every combination of these, D4M's, unweighted random images, and given sets.

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
    given: dict[str, GivenRow] = Field({}, description="sets of others by a name, each at its own images per class")

    @field_validator("ipc", "seeds", "quantizers", "weights", "pictures", "weights_in")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("each value once")
        return values

    @model_validator(mode="after")
    def _given_sets_fit(self) -> Matrix:
        for name, row in self.given.items():
            check_method_name(name)
            if row.decode.method != GIVEN:
                raise ValueError(f"{name} is no given set: its decode.method is {row.decode.method!r}")
            if row.ipc not in self.ipc:
                raise ValueError(f"{name} has {row.ipc} images per class, not {self.ipc}: add --ipc {row.ipc}")
        return self

    @property
    def only_given(self) -> bool:
        """Whether nothing is quantised: given sets beside real images at random."""
        return bool(self.given) and self.pictures == (RANDOM,) and self.weights == ("uniform",)

    def cells(self, ipc: int) -> dict[str, Cell]:
        """By name, all that differ at this many images per class."""
        return {cell.name: cell for cell in self._cells(ipc)}

    def _cells(self, ipc: int) -> Iterator[Cell]:
        yield from (Cell(name, GIVEN, "loss", GIVEN) for name, row in self.given.items() if row.ipc == ipc)
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

    @property
    def levels(self) -> dict[str, list[str]]:
        """The values of each axis of a cell."""
        axes = {"quantizer": self.quantizers, "weights": self.weights, "weights_in": self.weights_in}
        return {axis: [str(level) for level in found] for axis, found in {**axes, "pictures": self.pictures}.items()}

    def recipe(self, recipe: Recipe, ipc: int) -> Recipe:
        """The recipe with the cells at this many images per class as its methods."""
        methods = {name: self._method_of(cell).model_dump() for name, cell in self.cells(ipc).items()}
        return recipe.with_changes({"ipc": ipc, "seeds": self.seeds, "methods": methods})

    def _method_of(self, cell: Cell) -> MethodConfig:
        if cell.is_given:
            return MethodConfig(decode=self.given[cell.quantizer].decode.model_dump(exclude_defaults=True))
        if self.only_given:  # no latents are needed
            return MethodConfig(decode={"method": RANDOM})
        decode: dict[str, Any] = {"method": "medoid" if cell.is_random else cell.pictures}
        if cell.pictures in WAYS:
            decode = {"method": "diffusion", **WAYS[cell.pictures]}
        return MethodConfig(
            cluster={"method": cell.quantizer},
            decode=decode,
            weights=cell.weights,
            weights_in=cell.weights_in,
        )


def check_changes(changes: Iterable[str]) -> None:
    """Raise UsageError for a setting of a recipe that a matrix takes the place of."""
    for name in changes:
        if name.split("=")[0] in OWNED:
            raise UsageError(
                f"a comparison does not take {name!r}: it compares {OWNED[name.split('=')[0]]}, which has an option of "
                "its own (see ddoq compare --help)"
            )
