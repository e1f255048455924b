"""What settings are made of: numbers and names within bounds, and the base of all models of settings."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _printable(text: str) -> str:
    """The text. Raises ValueError for one that no terminal, file system or JSON file could take as it is."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError("control characters, or bytes that are no text: write it without")
    return text


def each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values. Raises ValueError where one stands twice."""
    if len(set(values)) < len(values):
        raise ValueError("name each value once")
    return values


# Bounds are far above what anybody trains with: beyond them lie typing errors, and numbers that no machine holds.
Text = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_printable)]  # a name or a path
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(gt=0, le=10**7)]
Side = Annotated[int, Field(gt=0, le=4096)]
Width = Annotated[int, Field(gt=0, le=8192)]
Rate = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
Architecture = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=100)]
Strength = Annotated[float, Field(gt=0, le=1)]
Noise = Literal["plain", "cell", "class"]
Steps = Annotated[int, Field(gt=0, le=1000)]  # of sampling, and tries of it
Weighting = Literal["uniform", "sqrt", "mass", "sqrt-paper"] | Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]


class Settings(BaseModel):
    """Base of all settings: frozen, and unknown names are refused, of the core's dataclasses among them too."""

    model_config = ConfigDict(frozen=True, extra="forbid")
