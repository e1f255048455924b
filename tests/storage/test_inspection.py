"""Looking at artifacts: description, verification, forgetting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from storage.artifact import Artifact
from storage.clock import Clock
from storage.inspection import NoArtifact, artifact_folders, describe, forgetting, verify_folder
from storage.zarr_store import ClassStore

CLASSES = ("n01", "n02")


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    artifact = Artifact(tmp_path, "cluster", 1, {"method": "exact"})
    store = ClassStore(artifact.path / "prototypes.zarr")
    for name in CLASSES:
        files = store.write_class(name, {"centroids": np.ones((3, 4)), "counts": np.arange(3)})
        artifact.commit(name, files, inputs="in", clock=Clock())
    artifact.finish(CLASSES)
    return artifact


def chunk_of(artifact: Artifact, name: str) -> Path:
    return artifact.path / "prototypes.zarr" / name / "centroids" / "c" / "0" / "0"


def test_a_description_says_what_is_held(artifact: Artifact) -> None:
    text = describe(artifact.path)
    assert f"cluster/{artifact.digest}: complete" in text
    assert "settings: {'method': 'exact'}" in text and "units: 2" in text and "missing" not in text
    assert text.endswith(
        "prototypes.zarr: 2 classes\n  n01: centroids (3, 4) float64, counts (3,) int64"
        "\n  n02: centroids (3, 4) float64, counts (3,) int64"
    )


def test_a_description_of_an_unfinished_artifact_counts_its_units(artifact: Artifact) -> None:
    (artifact.path / "record.json").unlink()
    assert f"cluster/{artifact.digest}: not complete, 2 units so far" in describe(artifact.path)


def test_a_description_names_missing_units_and_no_leftovers_of_a_kill(artifact: Artifact) -> None:
    (artifact.path / "prototypes.zarr" / "n02").rename(artifact.path / "prototypes.zarr" / ".n02.0123abcd.partial")
    forgetting(artifact.path, ["n02"]).carry_out()
    text = describe(artifact.path)
    assert "missing units: n02" in text and "partial" not in text and "size: " in text


@pytest.mark.parametrize("name", ["record.json", "marks/n01.json"])
def test_an_unreadable_record_or_mark_does_not_stop_a_description(artifact: Artifact, name: str) -> None:
    (artifact.path / name).write_bytes(b'{"half')
    text = describe(artifact.path)
    assert ("not complete, 2 units" if name == "record.json" else "missing units: n01") in text


def test_a_whole_artifact_verifies(artifact: Artifact) -> None:
    assert verify_folder(artifact.path) == []
    assert artifact.is_done(deep=True)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "deleted"])
def test_verification_names_the_damaged_file_and_makes_its_unit_missing(artifact: Artifact, damage: str) -> None:
    chunk = chunk_of(artifact, "n01")
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    if damage == "deleted":
        chunk.unlink()
    unit_file = "unit n01, file prototypes.zarr/n01/centroids/c/0/0"
    assert verify_folder(artifact.path) == [f"damaged: cluster/{artifact.digest}, {unit_file}"]
    assert artifact.missing(dict.fromkeys(CLASSES, "in")) == ["n01"] and not artifact.is_done()


@pytest.mark.parametrize("content", [b"", b'{"half', b"{}"])
def test_verification_reports_an_unreadable_mark(artifact: Artifact, content: bytes) -> None:
    mark = artifact.path / "marks" / "n01.json"
    mark.write_bytes(content)
    for _ in range(2):
        assert verify_folder(artifact.path) == [f"damaged: cluster/{artifact.digest}, unit n01, file marks/n01.json"]
        assert mark.read_bytes() == content, "it may be somebody's"
    assert artifact.missing(dict.fromkeys(CLASSES, "in")) == ["n01"]
    mark.unlink()
    assert verify_folder(artifact.path) == [f"missing: cluster/{artifact.digest}, unit n01, file marks/n01.json"]


def test_verification_reports_an_unreadable_record(artifact: Artifact) -> None:
    (artifact.path / "record.json").write_bytes(b"{")
    assert verify_folder(artifact.path) == [f"damaged: cluster/{artifact.digest}, file record.json"]
    assert not artifact.is_done()
    artifact.finish(CLASSES)
    assert verify_folder(artifact.path) == []


def test_a_forgotten_unit_is_missing_and_the_others_are_not(artifact: Artifact) -> None:
    assert forgetting(artifact.path, ["n01"]).carry_out() == [f"forgotten: cluster/{artifact.digest}, unit n01"]
    assert artifact.missing(dict.fromkeys(CLASSES, "in")) == ["n01"]
    assert not chunk_of(artifact, "n01").exists() and chunk_of(artifact, "n02").exists()


def test_a_forgotten_artifact_is_gone(artifact: Artifact) -> None:
    assert forgetting(artifact.path, []).carry_out() == [f"forgotten: cluster/{artifact.digest}"]
    assert not artifact.path.exists()


def test_much_is_known_as_much_and_told_with_its_size(artifact: Artifact) -> None:
    one, whole = forgetting(artifact.path, ["n01"]), forgetting(artifact.path, [])
    size = sum(f.stat().st_size for f in (artifact.path / "prototypes.zarr" / "n01").rglob("*") if f.is_file())
    assert not one.is_much and str(one) == f"cluster/{artifact.digest}: 1 of 2 units, {size:,} bytes"
    assert whole.is_much and f"cluster/{artifact.digest}: all of it, 2 units, " in str(whole)


def test_what_is_damaged_is_named_in_a_description_and_not_shown(artifact: Artifact) -> None:
    metadata = artifact.path / "prototypes.zarr/n01/centroids/zarr.json"
    metadata.write_text(metadata.read_text().replace("3,", "7,", 1))
    text = describe(artifact.path)
    assert "n01: damaged: prototypes.zarr/n01/centroids/zarr.json: run the recipe again" in text
    assert "n02: centroids (3, 4) float64" in text and "(7, 4)" not in text


@pytest.mark.parametrize("damage", ["deleted", "of another kind"])
def test_the_root_of_a_store_is_checked_and_mended(artifact: Artifact, damage: str) -> None:
    root = artifact.path / "prototypes.zarr" / "zarr.json"
    before = root.read_bytes()
    root.unlink()
    if damage != "deleted":
        root.write_bytes(before.replace(b'"digest"', b'"weight"'))
    assert verify_folder(artifact.path) == [f"damaged: cluster/{artifact.digest}, file prototypes.zarr/zarr.json"]
    assert not artifact.is_done() and artifact.mend() and root.read_bytes() == before


def test_while_a_class_is_missing_no_reader_is_told_that_it_is_there(artifact: Artifact) -> None:
    """Of one in consolidated metadata fill values would be read."""
    store = ClassStore(artifact.path / "prototypes.zarr")
    before = (store.path / "zarr.json").read_bytes()
    artifact.forget("n01")
    opened = zarr.open_group(store.path, mode="r")
    assert "n01" not in opened and "n02" in opened and not artifact.mend()
    files = store.write_class("n01", {"centroids": np.zeros((3, 4)), "counts": np.arange(3)}, w2=2.5)
    artifact.commit("n01", files, inputs="in", clock=Clock())
    assert zarr.open_group(store.path, mode="r")["n01"].attrs["w2"] == 2.5 and not artifact.is_done()
    artifact.finish(CLASSES)
    assert artifact.is_done(deep=True) and (store.path / "zarr.json").read_bytes() != before
    assert zarr.open_group(store.path, mode="r").metadata.consolidated_metadata is not None


def test_a_store_of_before_roots_were_on_record_is_whole(artifact: Artifact) -> None:
    record = artifact.record()
    record.model_copy(update={"roots": {}}).save(artifact.path / "record.json")
    assert not artifact.is_done(), "its root is to be a bare group"
    (artifact.path / "prototypes.zarr" / "zarr.json").unlink()
    assert artifact.mend() and verify_folder(artifact.path) == []


def test_an_unknown_unit_forgets_nothing(artifact: Artifact) -> None:
    with pytest.raises(NoArtifact, match="no unit 'n07': it has n01, n02"):
        forgetting(artifact.path, ["n01", "n07"]).carry_out()
    assert artifact.is_done(deep=True)


def test_what_is_no_artifact_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    for path in (tmp_path, artifact.path / "marks", tmp_path / "nowhere"):
        with pytest.raises(NoArtifact, match="is no artifact's folder"):
            describe(path)
        with pytest.raises(NoArtifact, match="is no artifact's folder"):
            forgetting(path, []).carry_out()
    with pytest.raises(NoArtifact, match="holds no artifacts"):
        artifact_folders(tmp_path / "nowhere")


def test_artifacts_are_found_once_through_links(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "cluster").symlink_to(artifact.path)
    assert artifact_folders(tmp_path) == [artifact.path.resolve()]
    assert artifact_folders(tmp_path / "digits" / "cluster") == [artifact.path.resolve()]
    assert describe(tmp_path / "digits" / "cluster") == describe(artifact.path)
    forgetting(tmp_path / "digits" / "cluster", []).carry_out()
    assert not artifact.path.exists()
