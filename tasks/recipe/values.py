"""What single settings may be: numbers within bounds, names and paths. Knows no recipe."""

from __future__ import annotations

import string
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, Field


def printable(text: str) -> str:
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
Text = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(printable)]  # a name or a path
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(gt=0, le=10**7)]
Side = Annotated[int, Field(gt=0, le=4096)]
Width = Annotated[int, Field(gt=0, le=8192)]
Rate = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
Architecture = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=100)]
METHOD_NAME = 60  # characters


def check_method_name(name: str) -> None:
    """Raise ValueError for a name that could not be part of a file's, on any system."""
    plain = name.translate(dict.fromkeys(map(ord, "-_.+"), "0")).isalnum() and name.isascii()
    if not plain or not name[0].isalnum() or ".." in name or len(name) > METHOD_NAME:
        raise ValueError(
            f"a method cannot be called {name[: 2 * METHOD_NAME]!r}: name it by at most {METHOD_NAME} letters, "
            "digits, - _ . and +, of which the first is a letter or a digit and no two are dots in a row"
        )


def check_prompt(prompt: str) -> str:
    """The prompt. Raises ValueError for one with anything but {name} in braces."""
    try:
        fields = [parts[1:] for parts in string.Formatter().parse(prompt) if parts[1] is not None]
    except ValueError as error:
        raise ValueError(f"{error}: write a prompt like 'a photo of {{name}}'") from error
    if any(field != ("name", "", None) for field in fields):
        raise ValueError("of what stands in braces there is {name} alone: write a prompt like 'a photo of {name}'")
    return prompt
