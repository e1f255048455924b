"""Class names as names of files: plain ones as they are, all others apart from each other and harmless."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddoq_core.imagenet import describe
from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import list_files
from storage.inspection import describe as describe_artifact
from storage.inspection import forgetting, verify_folder
from storage.names import FORBIDDEN, MAX_BYTES, file_name, is_plain, unit_path
from storage.sources import subset_classes
from storage.zarr_store import ClassStore, LatentStore, block_names

ODD = [
    "zarr.json", "Zarr.JSON", ".x.partial", "x.partial", "x.PARTIAL", "..", ".", ".hidden", "a/b", "a\\b", "a%2Fb",
    "a\nb", "a\x7fb", "a:b", "x" * 240, "é" * 120, "e\u0301", "a\u200bb", "x" * 300,
]  # fmt: skip
names = st.text(min_size=1, max_size=300) | st.sampled_from(ODD) | st.text("aA.%/:é", min_size=1, max_size=6)


def as_files_may_be_compared(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


@given(names, names)
def test_two_names_never_share_a_file(a: str, b: str) -> None:
    assert (file_name(a) == file_name(b)) == (a == b)
    if a != b and not (is_plain(a) and is_plain(b)):
        assert as_files_may_be_compared(file_name(a)) != as_files_may_be_compared(file_name(b))


@given(names)
def test_a_file_name_is_never_reserved_too_long_or_hidden(name: str) -> None:
    found = file_name(name)
    assert len(found.encode()) <= MAX_BYTES and found.isprintable() and not re.search(r'[/\\:*?"<>|]', found)
    assert not found.startswith(".") and not found.lower().endswith(".partial") and found.lower() != "zarr.json"


@given(names)
def test_plain_names_stay_and_others_do_not(name: str) -> None:
    assert (file_name(name) == name) == is_plain(name)
    if is_plain(name):
        assert file_name(file_name(name)) == name and not FORBIDDEN.search(name)


@pytest.mark.parametrize(
    "name", ["0", "-1", "n01440764", "German Shepherd", "tench, Tinca tinca", "Übung", "猫", "हिन्दी", "v1.5", "x" * 200]
)
def test_what_users_call_their_classes_is_plain(name: str) -> None:
    assert file_name(name) == name and unit_path(f"{name}/0") == f"{name}/0"


def test_the_names_of_imagenet_are_plain() -> None:
    assert all(is_plain(c) and is_plain(describe(c)) for c in subset_classes("imagenet100"))


def test_others_stay_readable() -> None:
    assert file_name("zarr.json") == "zarr%2Ejson" and file_name("..") == "%2E%2E"
    assert file_name("Really? no") == "%52eally%3F no"
    assert re.fullmatch(r"x{80}%~[0-9a-f]{24}", file_name("x" * 240))


@pytest.mark.parametrize("name", [name for name in ODD if "/" not in name])
def test_stores_and_marks_hold_classes_of_any_name(tmp_path: Path, name: str) -> None:
    artifact = Artifact(tmp_path, "encode", 1, {})
    latents, classes = LatentStore(artifact.path / "latents.zarr"), ClassStore(artifact.path / "classes.zarr")
    z = np.ones((3, 4, 2, 2), np.float16)
    [unit] = block_names(name, 3)
    for class_name in (name, "plain"):
        latents.prepare_pack(class_name, {class_name: np.arange(3)}, (4, 2, 2))
        files = [*latents.write_block(class_name, 0, z), *classes.write_class(class_name, {"counts": np.arange(3)})]
        artifact.commit(f"{class_name}/0", files, inputs="in", clock=Clock())
    artifact.finish([unit, "plain/0"])
    assert artifact.is_done(deep=True) and set(artifact.marks()) == {unit, "plain/0"}
    np.testing.assert_array_equal(latents.read_class(name), z)
    np.testing.assert_array_equal(classes.read_class(name)["counts"], np.arange(3))
    assert (artifact.path / "marks" / "plain" / "0.json").exists() and (latents.path / "plain" / "rows").exists()
    assert "units: 2" in describe_artifact(artifact.path) and verify_folder(artifact.path) == []
    assert list_files(tmp_path) == [path for path in sorted(tmp_path.rglob("*")) if path.is_file()], "a leftover"
    assert forgetting(artifact.path, [unit]).carry_out() == [f"forgotten: {artifact}, unit {unit}"]
    assert set(artifact.marks()) == {"plain/0"} and artifact.missing({unit: "in"}) == [unit]
