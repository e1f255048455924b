"""Where tests find the repository, and the photographs and weights beside it."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(os.environ.get("DDOQ_SHARED", REPOSITORY.parent / "shared"))
