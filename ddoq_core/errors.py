"""What is raised for what was given, where a user's settings may reach it."""

from __future__ import annotations


class InvalidInput(ValueError):
    """A value that cannot serve: the message names it and what would."""
