"""The tables of the documents are those of docs/results.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.tables import DOCUMENTS, PLACE, RESULTS, rendered


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_show_what_was_measured(path: Path) -> None:
    text = path.read_text()
    assert PLACE.search(text), "a document with tables"
    assert rendered(text, json.loads(RESULTS.read_text())) == text
