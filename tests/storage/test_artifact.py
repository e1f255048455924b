"""What counts as done, and what is left after a write that failed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from storage.artifact import Artifact, Damaged, NotDone
from storage.clock import Clock
from storage.files import (
    hash_file,
    list_files,
    read_checked,
    sha256_of,
    whole_folder,
    write_checked,
    write_json,
    write_whole,
)
from storage.frame import is_artifact
from storage.inspection import unchecked_files, verify_folder
from storage.zarr_store import LatentStore


def write_unit(artifact: Artifact, unit: str, data: bytes = b"numbers", inputs: str = "in") -> Path:
    path = artifact.path / f"{unit}.bin"
    write_whole(path, data)
    artifact.commit(unit, [path], inputs=inputs, clock=Clock())
    return path


def flip_a_byte(path: Path, *, keep_times: bool) -> None:
    at = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns if keep_times else at.st_mtime_ns + 1))


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Artifact(tmp_path, "encode", 1, {"size_px": 8})


# --- identity ------------------------------------------------------------------------------------------


def test_equal_settings_have_equal_digests_whatever_their_order(tmp_path: Path) -> None:
    one = Artifact(tmp_path, "cluster", 1, {"a": 1, "b": {"c": [1, 2], "d": None}})
    other = Artifact(tmp_path / "elsewhere", "cluster", 1, {"b": {"d": None, "c": (1, 2)}, "a": 1}, label="x")
    assert one.digest == other.digest and len(one.digest) == 12


def test_whatever_changes_the_result_changes_the_digest(tmp_path: Path) -> None:
    parent, other_parent = (Artifact(tmp_path, "encode", 1, {"k": k}) for k in (0, 1))
    made = [
        Artifact(tmp_path, "cluster", 1, {"a": 1}, {"encode": parent}),
        Artifact(tmp_path, "cluster", 1, {"a": 2}, {"encode": parent}),
        Artifact(tmp_path, "cluster", 1, {"a": "1"}, {"encode": parent}),
        Artifact(tmp_path, "cluster", 2, {"a": 1}, {"encode": parent}),
        Artifact(tmp_path, "cluster", 1, {"a": 1}, {"encode": other_parent}),
        Artifact(tmp_path, "cluster", 1, {"a": 1}, {"prior": parent}),
        Artifact(tmp_path, "cluster", 1, {"a": 1}),
        Artifact(tmp_path, "decode", 1, {"a": 1}, {"encode": parent}),
    ]
    assert len({a.digest for a in made}) == len(made)


def test_a_folder_is_opened_with_all_that_it_was_made_from(tmp_path: Path) -> None:
    shard = Artifact(tmp_path, "shard", 2, {"path": "data"})
    write_unit(shard, "index")
    shard.finish(["index"])
    encode = Artifact(tmp_path, "encode", 3, {"size_px": 8}, {"shard": shard.known_as("by-content")})
    write_unit(encode, "a")
    cluster = Artifact(tmp_path, "cluster", 1, {"k": 2}, {"encode": encode})
    write_unit(cluster, "a")
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "prototypes").symlink_to(cluster.path)
    found = Artifact.open(tmp_path / "digits" / "prototypes")
    assert (str(found), found.root, found.version, found.config) == (str(cluster), tmp_path, 1, {"k": 2})
    assert [str(a) for a in found.ancestors()] == [str(encode), str(shard)]
    assert found.ancestor("shard").record() == shard.record()
    with pytest.raises(LookupError, match="from no artifact of the stage prior"):
        found.ancestor("prior")


@pytest.mark.parametrize("plan", [None, "", "[]", '{"stage": "encode"}'])
def test_an_artifact_without_a_plan_is_damaged(plan: str | None, tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, "encode", 1, {})
    write_unit(artifact, "a")
    at = artifact.path / "plan.json"
    if plan is None:
        at.unlink()
    else:
        at.write_text(plan)
    with pytest.raises(Damaged, match=r"plan.json is damaged: run the recipe again, which writes it anew"):
        Artifact.open(artifact.path)


def test_a_folder_of_something_else_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "photos" / "marks").mkdir(parents=True)
    one, other = (Artifact(tmp_path, "encode", version, {}) for version in (1, 2))
    write_unit(one, "a")
    write_unit(other, "a")
    shutil.copy(other.path / "plan.json", one.path / "plan.json")
    for folder in (tmp_path / "photos", one.path, tmp_path):
        with pytest.raises(NotDone, match=r"is no artifact's folder: give one like runs/digits/encode"):
            Artifact.open(folder)


def test_a_grandparent_changes_the_digest(tmp_path: Path) -> None:
    def chain(setting: int) -> Artifact:
        first = Artifact(tmp_path, "shard", 1, {"k": setting})
        return Artifact(tmp_path, "cluster", 1, {}, {"encode": Artifact(tmp_path, "encode", 1, {}, {"shard": first})})

    assert chain(0).digest == chain(0).digest != chain(1).digest


def test_children_chain_on_what_a_data_set_is_known_as(tmp_path: Path) -> None:
    here, there = (Artifact(tmp_path, "shard", 1, {"path": path}) for path in ("/a", "/b"))
    digests = {Artifact(tmp_path, "encode", 1, {}, {"shard": a.known_as("same")}).digest for a in (here, there)}
    assert here.digest != there.digest and len(digests) == 1
    assert here.known_as("same").path == here.path


def test_a_setting_that_json_cannot_spell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Artifact(tmp_path, "encode", 1, {"strength": float("nan")})


# --- units ---------------------------------------------------------------------------------------------


def test_a_unit_is_missing_until_it_is_committed(artifact: Artifact) -> None:
    write_whole(artifact.path / "a.bin", b"numbers")
    assert artifact.missing({"a": "in"}) == ["a"]
    artifact.commit("a", [artifact.path / "a.bin"], inputs="in", clock=Clock())
    assert artifact.missing({"a": "in"}) == []
    assert artifact.num_marks() == 1 and set(artifact.marks()) == {"a"}


def test_a_unit_from_other_inputs_is_missing(artifact: Artifact) -> None:
    write_unit(artifact, "a", inputs="in")
    assert artifact.missing({"a": "other"}) == ["a"]


@pytest.mark.parametrize("damage", ["deleted", "truncated", "longer", "flipped"])
def test_a_damaged_file_makes_its_unit_missing_and_no_other(artifact: Artifact, damage: str) -> None:
    path, _ = write_unit(artifact, "n01/0"), write_unit(artifact, "n01/1")
    if damage == "deleted":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "longer":
        path.write_bytes(path.read_bytes() + b"!")
    else:
        flip_a_byte(path, keep_times=False)
    assert artifact.missing({"n01/0": "in", "n01/1": "in"}) == ["n01/0"]


def test_a_flip_behind_the_clocks_back_is_found_by_reading(artifact: Artifact) -> None:
    flip_a_byte(write_unit(artifact, "a"), keep_times=True)
    artifact.finish(["a"])
    assert artifact.holds("a", "in") and artifact.is_done()
    assert not artifact.holds("a", "in", deep=True) and not artifact.is_done(deep=True)


def test_a_file_that_was_only_touched_is_still_held(artifact: Artifact) -> None:
    os.utime(write_unit(artifact, "a"), ns=(0, 0))
    assert artifact.holds("a", "in")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"unit": "a"}'])
def test_an_unreadable_mark_makes_its_unit_missing(artifact: Artifact, content: bytes) -> None:
    write_unit(artifact, "a")
    (artifact.path / "marks" / "a.json").write_bytes(content)
    assert artifact.missing({"a": "in"}) == ["a"] and artifact.marks() == {}


def test_a_forgotten_unit_leaves_no_files_and_spares_the_others(artifact: Artifact) -> None:
    path, other = write_unit(artifact, "a"), write_unit(artifact, "b")
    artifact.forget("a")
    assert not path.exists() and other.exists() and set(artifact.marks()) == {"b"}
    artifact.forget()
    assert not artifact.path.exists()


def test_a_unit_name_may_have_dots(artifact: Artifact) -> None:
    write_unit(artifact, "v1.5")
    write_unit(artifact, "v1.4")
    assert set(artifact.marks()) == {"v1.5", "v1.4"}


# --- the whole -----------------------------------------------------------------------------------------


def test_finish_refuses_while_a_unit_is_missing(artifact: Artifact) -> None:
    write_unit(artifact, "a")
    with pytest.raises(NotDone, match=r"1 of 2 units are missing, the first is b"):
        artifact.finish(["a", "b"])
    assert not artifact.is_done()
    with pytest.raises(NotDone, match="not done: run that stage"):
        artifact.content()


def test_an_artifact_is_done_while_all_its_files_are_as_written(artifact: Artifact) -> None:
    path = write_unit(artifact, "a")
    artifact.checkpoint_path.write_bytes(b"state of a training")
    artifact.finish(["a"], facts={"images": 3})
    assert artifact.is_done() and artifact.record().facts == {"images": 3}
    assert not artifact.checkpoint_path.exists()
    path.unlink()
    assert not artifact.is_done()


def test_a_remade_unit_with_other_numbers_undoes_the_record(artifact: Artifact) -> None:
    write_unit(artifact, "a")
    artifact.finish(["a"])
    write_unit(artifact, "a", b"NUMBERS")
    assert not artifact.is_done()
    write_unit(artifact, "a")
    assert artifact.is_done()


def test_a_child_is_done_only_while_its_parents_content_is_what_it_was_made_from(tmp_path: Path) -> None:
    parent = Artifact(tmp_path, "encode", 1, {})
    child = Artifact(tmp_path, "cluster", 1, {}, {"encode": parent})
    with pytest.raises(NotDone), child.writing("model", Clock()):
        raise AssertionError("a child must not be made of a parent that is not done")
    for content, child_holds in ((b"one", True), (b"two", False), (b"one", True)):
        write_unit(parent, "a", content)
        parent.finish(["a"])
        if not child.path.exists():
            with child.writing("model", Clock()) as folder:
                (folder / "weights").write_bytes(b"w")
        assert child.is_done() is child_holds
    parent.forget()
    assert not child.is_done()


def test_a_record_of_another_artifact_does_not_count(artifact: Artifact, tmp_path: Path) -> None:
    write_unit(artifact, "a")
    artifact.finish(["a"])
    other = Artifact(tmp_path, "encode", 1, {"size_px": 16})
    shutil.copytree(artifact.path, other.path)
    assert artifact.is_done() and not other.is_done()


def test_a_remade_whole_replaces_the_former(artifact: Artifact) -> None:
    for name in ("old", "new"):
        with artifact.writing("model", Clock(), {"name": name}) as folder:
            (folder / name).write_text(name)
    assert [f.name for f in list_files(artifact.path / "model")] == ["new"]
    assert artifact.is_done(deep=True) and artifact.record().facts == {"name": "new"}


# --- writes that fail ------------------------------------------------------------------------------------


class Interrupted(Exception):
    """What a test throws into a write."""


def test_a_failed_write_keeps_the_former_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"old")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "a", "not bytes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b", {"loss": float("inf")})
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_a_failed_folder_keeps_the_former_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "a") as folder:
        (folder / "old").write_bytes(b"old")
    with pytest.raises(Interrupted), whole_folder(tmp_path / "a") as folder:
        (folder / "new").write_bytes(b"new")
        raise Interrupted
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["a", "a/old"]


def test_an_exception_while_writing_leaves_the_artifact_not_done_and_empty(artifact: Artifact) -> None:
    with pytest.raises(Interrupted), artifact.writing("model", Clock()) as folder:
        (folder / "weights").write_bytes(b"half of them")
        raise Interrupted
    assert not artifact.is_done() and list_files(artifact.path) == []


def test_what_a_cut_write_left_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".model.0123abcd.partial" / "deep").mkdir(parents=True)
    (tmp_path / ".model.0123abcd.partial" / "deep" / "weights").write_bytes(b"half")
    (tmp_path / ".record.json.0123abcd.partial").write_bytes(b"{")
    (tmp_path / "whole").write_bytes(b"whole")
    assert [p.name for p in list_files(tmp_path)] == ["whole"]


ZARR_KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from storage.zarr_store import LatentStore

Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
LatentStore(Path(sys.argv[1])).write_block("a", 0, np.ones((3, 2, 2, 2), np.float16))
"""


def test_what_zarr_left_when_it_was_killed_is_dropped_when_the_artifact_is_finished(artifact: Artifact) -> None:
    store, z = LatentStore(artifact.path / "latents.zarr"), np.ones((3, 2, 2, 2), np.float16)
    store.prepare_pack("a", {"a": np.arange(3)}, z.shape[1:])
    subprocess.run([sys.executable, "-c", ZARR_KILLED, store.path], check=False)
    assert len(list(artifact.path.rglob("*.partial"))) == 1
    artifact.commit("a/0", store.write_block("a", 0, z), inputs="", clock=Clock())
    artifact.finish(["a/0"])
    assert not list(artifact.path.rglob("*.partial"))


KILLED = {
    "writing": """
        with artifact.writing("model", Clock()) as folder:
            (folder / "weights").write_bytes(b"half of them")
            os.kill(os.getpid(), signal.SIGKILL)
    """,
    "whole_folder": """
        with whole_folder(artifact.path / "model") as folder:
            (folder / "weights").write_bytes(b"half of them")
            os.kill(os.getpid(), signal.SIGKILL)
    """,
    "between the files and their mark": """
        with whole_folder(artifact.path / "model") as folder:
            (folder / "weights").write_bytes(b"all of them")
        os.kill(os.getpid(), signal.SIGKILL)
    """,
    "between the mark and the record": """
        with whole_folder(artifact.path / "model") as folder:
            (folder / "weights").write_bytes(b"all of them")
        artifact.commit("model", [folder.parent / "model"], inputs="in", clock=Clock())
        os.kill(os.getpid(), signal.SIGKILL)
    """,
}


@pytest.mark.parametrize("moment", KILLED)
def test_a_killed_process_leaves_the_artifact_not_done_and_a_rerun_completes(artifact: Artifact, moment: str) -> None:
    program = f"""
import os, signal
from pathlib import Path
from storage.artifact import Artifact
from storage.clock import Clock
from storage.files import whole_folder
artifact = Artifact(Path({str(artifact.root)!r}), "encode", 1, {{"size_px": 8}})
{textwrap.dedent(KILLED[moment])}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert artifact.path.exists() and not artifact.is_done()
    with artifact.writing("model", Clock()) as folder:
        (folder / "weights").write_bytes(b"all of them")
    assert artifact.is_done(deep=True)
    assert list(artifact.record().units) == ["model"]
    assert artifact.mark("model").files.keys() == {"model/weights"}  # type: ignore[union-attr]


def test_a_full_disk_raises_and_leaves_nothing_that_counts_as_done(small_disk: Path) -> None:
    artifact = Artifact(small_disk, "encode", 1, {})
    write_unit(artifact, "a", b"small")
    too_much = os.urandom(8 << 20)
    with pytest.raises(OSError, match="No space"):
        write_unit(artifact, "b", too_much)
    with pytest.raises(OSError, match="No space"), artifact.writing("model", Clock()) as folder:
        (folder / "weights").write_bytes(too_much)
    assert artifact.missing({"a": "in", "b": "in"}) == ["b"] and not artifact.is_done()
    assert [p.name for p in artifact.path.rglob("*") if p.is_file()] == ["plan.json", "a.bin", "a.json"]
    write_unit(artifact, "b", b"fits now")
    artifact.finish(["a", "b"])
    assert artifact.is_done(deep=True)


def test_hashes_are_those_of_the_standard_tools(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_file(tmp_path / "abc") == abc
    assert sha256_of({"b": 1, "a": [True]}) == sha256_of(json.loads('{ "a" : [true], "b" : 1 }'))


# --- what is said of itself ------------------------------------------------------------------------------


def write_mark(artifact: Artifact, name: str) -> Path:
    """The mark of the unit "a", sound by its checksum, with another name of its file."""
    mark = artifact.path / "marks" / "a.json"
    body = read_checked(mark)
    [stamp] = body["files"].values()
    write_checked(mark, {**body, "files": {name: stamp}})
    return mark


@pytest.mark.parametrize("name", ["/outside", "../outside", "model/../../outside", "..", "", ".", "a\0"])
def test_a_mark_of_files_outside_is_damaged(artifact: Artifact, tmp_path: Path, name: str) -> None:
    write_unit(artifact, "a")
    outside = tmp_path / "outside"
    shutil.copy2(artifact.path / "a.bin", outside)
    mark = write_mark(artifact, str(outside) if name == "/outside" else name)
    assert artifact.mark("a") is None and artifact.missing({"a": "in"}) == ["a"] and not artifact.marks()
    assert any("marks/a.json" in line for line in verify_folder(artifact.path))
    artifact.forget("a")
    assert outside.exists() and not mark.exists()


def test_a_mark_of_files_that_a_link_puts_outside_is_damaged(artifact: Artifact, tmp_path: Path) -> None:
    write_unit(artifact, "store/a")
    (artifact.path / "store").rename(tmp_path / "elsewhere")
    (artifact.path / "store").symlink_to(tmp_path / "elsewhere")
    assert artifact.missing({"store/a": "in"}) == ["store/a"]
    artifact.forget("store/a")
    assert (tmp_path / "elsewhere" / "a.bin").exists()


def test_a_root_behind_a_link_is_as_good(artifact: Artifact, tmp_path: Path) -> None:
    write_unit(artifact, "a")
    artifact.finish(["a"])
    (tmp_path / "link").symlink_to(tmp_path)
    assert Artifact(tmp_path / "link", "encode", 1, {"size_px": 8}).is_done(deep=True)


def test_a_mark_at_the_place_of_another_is_none(artifact: Artifact) -> None:
    write_unit(artifact, "a")
    (artifact.path / "marks" / "a.json").rename(artifact.path / "marks" / "b.json")
    assert artifact.mark("b") is None and artifact.marks() == {}


@pytest.mark.parametrize("name", ["plan.json", "record.json", "marks/a.json"])
def test_a_number_changed_by_hand_is_not_trusted(artifact: Artifact, name: str) -> None:
    write_unit(artifact, "a")
    artifact.finish(["a"], facts={"top1": 0.5})
    path = artifact.path / name
    body = json.loads(path.read_text())
    changed = {"plan.json": "version", "record.json": "peak_bytes", "marks/a.json": "peak_bytes"}[name]
    path.write_text(json.dumps({**body, changed: 7}))
    assert not artifact.is_done()
    del body["sha256"]  # as it was written before there were checksums
    path.write_text(json.dumps(body))
    assert artifact.is_done() and unchecked_files(artifact.path) == 1


def test_a_unit_that_reads_back_otherwise_is_made_again(artifact: Artifact) -> None:
    path = write_unit(artifact, "a")
    artifact.check("a")
    flip_a_byte(path, keep_times=True)
    assert artifact.holds("a", "in")
    with pytest.raises(Damaged, match=r"a\.bin \(unit a\) is gone or damaged: run the recipe again"):
        artifact.check("a")
    assert artifact.missing({"a": "in"}) == ["a"] and not artifact.reads_back("a")


def test_what_follows_from_the_rest_is_mended_without_making_anything(tmp_path: Path) -> None:
    parent, child = Artifact(tmp_path, "shard", 1, {}), Artifact(tmp_path, "teacher", 1, {})
    child.parents["shard"] = parent
    for artifact, facts in ((parent, {}), (child, {"top1": 0.5})):
        with artifact.writing("model", Clock(), facts) as folder:
            (folder / "weights").write_bytes(b"w")
    for name in ("plan.json", "record.json"):
        (child.path / name).write_bytes(b"{")
        assert not child.is_done() and child.mend()
        assert child.record().facts == {"top1": 0.5} and verify_folder(child.path) == []
    (child.path / "record.json").write_bytes(b"{")
    write_unit(parent, "model", b"other")
    parent.finish(["model"])
    assert not child.mend(), "its mark is of other inputs"


def test_the_sign_of_an_artifact_is_its_plan_not_the_name_of_a_folder(artifact: Artifact, tmp_path: Path) -> None:
    write_unit(artifact, "a")
    assert is_artifact(artifact.path)
    other = artifact.path.with_name("0123456789ab")
    shutil.copytree(artifact.path, other)
    assert not is_artifact(other), "its plan names another"
    (tmp_path / "birds" / "0123456789ab" / "marks").mkdir(parents=True)
    (tmp_path / "birds" / "0123456789ab" / "marks" / "1.json").write_text("{}")
    assert not is_artifact(tmp_path / "birds" / "0123456789ab")
    (artifact.path / "plan.json").write_bytes(b"{")
    assert is_artifact(artifact.path), "by its marks, so that it is reported"
    with pytest.raises(Damaged, match=r"plan\.json is damaged: run the recipe again"):
        Artifact.open(artifact.path)
