"""What went wrong and can be mended by the user; every other exception is a bug. Loads nothing."""

from __future__ import annotations


class UserError(Exception):
    """Base of all errors that the user can mend: the message names the value and the remedy."""


class UsageError(UserError, ValueError):
    """The user asked for something that cannot be."""


def first_line(error: BaseException) -> str:
    """What an error says first; "" where it says nothing."""
    return (str(error).strip().splitlines() or [""])[0]
