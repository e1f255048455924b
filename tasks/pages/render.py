"""Pages for people: templates in one style, and figures as they are put into them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any


def render(template: str, **values: Any) -> str:
    """A page of one of this folder's templates, complete in itself."""
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(Path(__file__).parent)
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template(template).render(**values)


def png_of(figure: Any) -> bytes:
    """A matplotlib figure as PNG; the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
