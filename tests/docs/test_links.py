"""Every link of the pages leads somewhere; addresses elsewhere are well formed, and are not asked."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.docs.pages import DOCS, PAGES, anchors, links
from tests.places import REPOSITORY

IDS = [str(page.relative_to(REPOSITORY)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme in ("http", "https") and "." in parts.netloc, target
            continue
        place = page.parent / parts.path if parts.path else page
        assert place.exists(), target
        assert place.resolve().is_relative_to(REPOSITORY), f"{target} leads out"
        if DOCS in page.parents:
            assert place.resolve().is_relative_to(DOCS), f"{target} is not there in the site: write its name as code"
        if parts.fragment:
            assert parts.fragment in anchors(place), target


def test_the_site_leads_to_every_page() -> None:
    tree = yaml.load((REPOSITORY / "mkdocs.yml").read_text(), yaml.BaseLoader)

    def files(branch: object) -> list[str]:
        if isinstance(branch, str):
            return [branch]
        return [file for part in (branch.values() if isinstance(branch, dict) else branch) for file in files(part)]  # type: ignore[attr-defined]

    assert sorted(files(tree["nav"])) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
