"""Golden digests of the shipped recipes: what was made yesterday is found today.

Where a digest is meant to move, `uv run python -m tests.flows.test_digests` writes the file anew: say in the commit
which stages move, and why.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.catalogue import load_recipe, recipes
from flows.plan import listed
from tasks.recipe.recipe import Recipe

GOLDEN = Path(__file__).parent / "golden_digests.json"
Digests = dict[str, list[str]]


def digests_of(root: Path, recipe: Recipe) -> Digests:
    """By stage."""
    _, listing = listed(recipe, root)
    found: Digests = {}
    for work in listing.works.values():
        found.setdefault(work.artifact.stage, []).append(work.artifact.digest)
    return {stage: sorted(digests) for stage, digests in sorted(found.items())}


def shipped(name: str) -> Recipe:
    """A recipe on scikit-learn's digits, which are there on every machine, its lengths not what this machine can do."""
    recipe = load_recipe(name)
    return recipe.with_changes({"data": {"source": "digits"}, **dict.fromkeys(recipe.left_open, 100), "minutes": None})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("name", recipes())
def test_digests_stay(name: str, root: Path) -> None:
    assert digests_of(root, shipped(name)) == json.loads(GOLDEN.read_text())[name]


@pytest.mark.parametrize(
    ("name", "value", "moved"),
    [
        ("claim", "another", set()),
        ("decode.prompt", "{name}!", {"report"}),
        ("decode.negative_prompt", "", {"report"}),
        ("train.label_top_k", 3, {"report"}),
        ("data.max_refused", 0.5, {"report"}),
        ("cluster.num_starts", 3, {"cluster", "decode", "measure", "train", "evaluate", "report"}),
        ("decode.mosaic", 2, {"cluster", "decode", "measure", "train", "evaluate", "report"}),
        ("decode.start", "member", {"decode", "measure", "train", "evaluate", "report"}),
        ("decode.guidance_scale", 3.0, {"decode", "measure", "train", "evaluate", "sample", "report"}),
    ],
)
def test_a_setting_moves_what_it_changes(name: str, value: object, moved: set[str], root: Path) -> None:
    before, after = (digests_of(root, r) for r in (shipped("digits"), shipped("digits").with_changes({name: value})))
    assert {stage for stage in before if before[stage] != after[stage]} == moved


def test_starts_are_of_the_methods_that_have_them(root: Path) -> None:
    methods = {"random": {"cluster": {"method": "random"}}, "d4m": {"cluster": {"method": "stream-d4m"}}}
    before, after = (
        digests_of(root, shipped("digits").with_changes({"methods": methods, "cluster.num_starts": starts}))
        for starts in (10, 3)
    )
    assert {stage for stage in before if before[stage] != after[stage]} == {"report"}


def test_methods_that_come_to_the_same_share_their_artifacts(root: Path) -> None:
    methods = {
        "stream": {"cluster": {"method": "stream"}, "weights": "uniform"},
        "d4m": {"cluster": {"method": "stream-d4m"}, "weights": "uniform"},
        "even": {"cluster": {"method": "balanced"}, "weights": "uniform"},
        "mass": {"cluster": {"method": "balanced"}, "weights": "mass"},
    }
    changes = {"methods": methods, "seeds": [0]}
    apart, same = (digests_of(root, shipped("digits").with_changes({**changes, "ipc": ipc})) for ipc in (10, 1))
    assert (len(apart["cluster"]), len(apart["train"])) == (3, 4)
    assert (len(same["cluster"]), len(same["train"])) == (2, 2), "1 divides every class"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = {name: digests_of(Path(folder), shipped(name)) for name in recipes()}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
