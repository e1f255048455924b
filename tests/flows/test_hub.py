"""`ddoq push` to a hub on loopback, and what somebody has who downloads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import yaml

from flows.hub import kind_of, upload
from storage.errors import UsageError
from tests.flows.conftest import IPC, Result, ddoq, free_port
from tests.hub import KNOWN, READS_ONLY, Hub, serve_hub

SETTINGS = {"HF_TOKEN": KNOWN, "HF_HUB_DISABLE_XET": "1"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as served:
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As small as an export can be."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text('---\ntags: ["ddoq"]\n---\n')
    (tmp_path / "out" / "a.txt").write_text("a")
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_recipes_set_is_read_by_who_downloads_it(
    hub: Hub, finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ddoq("push", "digits", "somebody/digits", "--root", finished[0], **SETTINGS, HF_ENDPOINT=hub.url)
    assert told.code == 0, told.errors
    assert f"{hub.url}/datasets/somebody/digits" in told.output
    (made,) = hub.made
    assert made["type"] == "dataset" and "visibility" not in made
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from datasets import load_dataset

    rows = load_dataset(str(hub.write("datasets/somebody/digits", tmp_path / "there")), split="train")
    assert len(rows) == 10 * IPC and rows.features["label"].names == [str(k) for k in range(10)]


@pytest.mark.parametrize("kind", ["teacher", "prior"])
def test_a_model_is_loaded_by_its_cards_lines(
    kind: str, hub: Hub, finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, there = tmp_path / "out", tmp_path / "there"
    told = ddoq("export", "digits", "--to", kind, "--out", out, "--root", finished[0])
    assert told.code == 0, told.errors
    told = ddoq("push", out, "somebody/model", "--private", **SETTINGS, HF_ENDPOINT=hub.url)
    assert told.code == 0, told.errors
    (made,) = hub.made
    assert made["type"] == "model" and made["visibility"] == "private"
    assert hub.repositories["models/somebody/model"] == contents(out)
    assert any(name.endswith(".safetensors") for name in contents(out))

    card = (hub.write("models/somebody/model", there) / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "other" and {"ddoq", kind} <= set(front["tags"])
    assert "## Licence" in card and str(finished[0]) not in card
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(there)
    found: dict[str, object] = {}
    exec(lines, found)
    if kind == "teacher":
        logits = found["logits"]
        assert isinstance(logits, torch.Tensor) and logits.shape == (2, 10) and "top1" in card
    else:
        prior, autoencoder = found["prior"], found["autoencoder"]
        assert prior.config.channels == autoencoder.config.latent_channels  # type: ignore[attr-defined]


def test_a_dry_run_lists_and_sends_nothing(hub: Hub, folder: Path) -> None:
    told = ddoq("push", folder, "a/b", "--dry-run", HF_ENDPOINT=hub.url)
    assert told.code == 0, told.errors
    lines = [line.split() for line in told.output.splitlines()]
    assert [(line[0], line[-1]) for line in lines[:-1]] == [("23", "README.md"), ("1", "a.txt")]
    assert "24 bytes in 2 files would go to the dataset a/b" in told.output
    assert not hub.made


@pytest.mark.parametrize(
    ("token", "name", "told"),
    [
        ("", "a/b", "there is no token for the hub: make one"),
        ("hf_unknown", "a/b", "the token is not known: make one"),
        (READS_ONLY, "a/b", "the token may not write there: make one"),
        (KNOWN, "a b/c", "'a b/c' cannot be a name on the hub"),
        (KNOWN, "elsewhere", "cannot be reached"),
    ],
)
def test_what_can_be_mended_is_told(
    token: str, name: str, told: str, hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{free_port()}" if name == "elsewhere" else hub.url
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UsageError, match=re.escape(told)):
        upload(folder, name, "dataset")
    assert not any(hub.repositories.values())


def test_it_is_sent_again_where_it_was(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", KNOWN)
    for text in ("a", "b"):
        (folder / "a.txt").write_text(text)
        upload(folder, "a/b", "dataset")
        assert hub.repositories["datasets/a/b"] == contents(folder)


@pytest.mark.parametrize("card", [None, "", "# A card", "---\ntags: [cats]\n---\n"])
def test_a_folder_that_is_no_export_is_refused(card: str | None, tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    with pytest.raises(UsageError, match="no card of an export"):
        kind_of(tmp_path)
