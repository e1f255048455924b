"""One artifact: the folder `<root>/<stage>/<digest>/`, the marks of its units, and its record.

An artifact's identity is a digest chain over what it was made with; whether it is done is decided by what is on
disk alone. A unit's mark is written after the unit's files, the record after all marks. A mark remembers the
sha256 of the unit's files and of the inputs the unit was made from, so a unit counts as missing when one of its
files is gone or changed, or when an input has other content than it had.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from storage.clock import Clock, versions
from storage.errors import UserError
from storage.files import (
    canonical_json,
    drop_leftovers,
    list_files,
    sha256_of,
    sync_all,
    whole_folder,
    write_whole,
)
from storage.frame import (
    MARKS,
    PLAN,
    RECORD,
    ROOT,
    damaged_frame,
    finish_root,
    has_plan,
    is_artifact,
    root_name,
    stores_of,
    write_root,
)
from storage.record import FileStamp, Mark, Plan, Record, damaged_files, load_mark, load_saved, mark_path


class NotDone(UserError, RuntimeError):
    """An artifact is needed that is not complete."""


class Damaged(UserError, RuntimeError):
    """What is read is not as it was written."""


class Artifact:
    """A reference to an artifact: small, picklable, the same in every process that sees the root.

    digest = first 12 hex of sha256(canonical JSON {stage, version, config, identities of the parents}).
    `identity` is what children chain on: the digest, or for a data set its content (see `known_as`).
    """

    def __init__(
        self,
        root: Path,
        stage: str,
        version: int,
        config: Mapping[str, Any],
        parents: Mapping[str, Artifact] | None = None,
        *,
        label: str = "",
        identity: str | None = None,
        digest: str | None = None,
    ) -> None:
        self.root, self.stage, self.version = root, stage, version
        self.config = json.loads(canonical_json(config))
        self.parents = dict(parents or {})
        self.digest = digest or self._chained()
        self.identity = identity or self.digest
        self.label = label or stage

    def _chained(self) -> str:
        chain = {name: parent.identity for name, parent in self.parents.items()}
        made_with = {"stage": self.stage, "version": self.version, "config": self.config, "parents": chain}
        return sha256_of(made_with)[:12]

    @classmethod
    def open(cls, folder: Path) -> Artifact:
        """The artifact of a folder `<root>/<stage>/<digest>`, or of a link to it, with all that it was made from, as
        their plans say. Raises NotDone for a folder without a plan of its own, Damaged for one whose plan is."""
        folder = folder.resolve()
        if not is_artifact(folder):
            raise NotDone(f"{folder} is no artifact's folder: give one like runs/digits/encode")
        plan = load_saved(Plan, folder / PLAN)
        if plan is None:
            raise Damaged(f"{folder / PLAN} is damaged: run the recipe again, which writes it anew")
        root = folder.parents[1]
        parents = {name: cls.open(root / plan.stages[name] / digest) for name, digest in plan.parents.items()}
        return cls(root, plan.stage, plan.version, plan.config, parents, digest=plan.digest)

    def ancestors(self) -> Iterator[Artifact]:
        """All that this artifact was made from, each once, the nearest first."""
        seen = {str(self)}
        waiting = deque(self.parents.values())
        while waiting:
            artifact = waiting.popleft()
            if str(artifact) not in seen:
                seen.add(str(artifact))
                yield artifact
                waiting.extend(artifact.parents.values())

    def ancestor(self, stage: str) -> Artifact:
        """The nearest artifact of a stage that this one was made from. Raises LookupError where there is none."""
        for artifact in self.ancestors():
            if artifact.stage == stage:
                return artifact
        raise LookupError(f"{self} was made from no artifact of the stage {stage}")

    def known_as(self, identity: str) -> Artifact:
        """The same artifact, with children chained on `identity` instead of its digest."""
        return Artifact(
            self.root, self.stage, self.version, self.config, self.parents, label=self.label, identity=identity
        )

    def __str__(self) -> str:
        return f"{self.stage}/{self.digest}"

    @property
    def path(self) -> Path:
        """The artifact's folder."""
        return self.root / self.stage / self.digest

    # --- units ---------------------------------------------------------------------------------------

    def mark(self, unit: str) -> Mark | None:
        """The mark of a unit as it was written, without a look at the unit's files."""
        return load_mark(self.path, mark_path(self.path, unit))

    def marks(self) -> dict[str, Mark]:
        """All marks by unit name."""
        marks = [load_mark(self.path, path) for path in list_files(self.path / MARKS)]
        return {mark.unit: mark for mark in marks if mark}

    def num_marks(self) -> int:
        """How many units are marked, without reading the marks."""
        return sum(1 for _ in (self.path / MARKS).rglob("*.json"))

    def holds(self, unit: str, inputs: str | None = None, *, deep: bool = False) -> bool:
        """Whether a unit is complete, unchanged, and made from these inputs."""
        mark = self.mark(unit)
        if mark is None or (inputs is not None and mark.inputs != inputs):
            return False
        return not damaged_files(self.path, mark, deep=deep)

    def check(self, unit: str, of: Callable[[str], bool] = lambda name: True) -> None:
        """Raise Damaged, with file and remedy, for a unit whose files do not hold the bytes that were written. They are
        read once in a process. The unit's mark is dropped then, if it can be, so that the next run makes it anew.

        of  which of the unit's files are looked at, by their names below the artifact's folder
        """
        mark = self.mark(unit)
        if mark is None:
            at = mark_path(self.path, unit)
            raise Damaged(f"{at} (unit {unit}) is gone or damaged: run the recipe again, which makes it anew")
        self._check_files(mark, of)

    def _check_files(self, mark: Mark, of: Callable[[str], bool]) -> None:
        bad = [name for name, stamp in mark.files.items() if of(name) and not stamp.is_read_from(self.path / name)]
        if bad:
            with suppress(OSError):
                self.drop_mark(mark.unit)
            raise Damaged(
                f"{self.path / bad[0]} (unit {mark.unit}) is gone or damaged: run the recipe again, which makes it "
                "anew (`ddoq verify` looks for more damage)"
            )

    def reads_back(self, unit: str) -> bool:
        """Whether a unit passes `check`."""
        try:
            self.check(unit)
        except Damaged:
            return False
        return True

    def missing(self, units: Mapping[str, str]) -> list[str]:
        """Of the units (name → hash of inputs), those that are not held."""
        return [unit for unit, inputs in units.items() if not self.holds(unit, inputs)]

    def commit(
        self, unit: str, paths: Iterable[Path], *, inputs: str, clock: Clock, facts: Mapping[str, Any] | None = None
    ) -> Mark:
        """Mark a unit complete: its files (folders are taken with all below) are on disk as they shall be."""
        written = sorted(f for p in paths for f in (list_files(p) if p.is_dir() else [p]))
        sync_all(written)
        files = {path.relative_to(self.path).as_posix(): FileStamp.of(path) for path in written}
        self._write_bare_roots(files)
        self._write_plan()
        mark = Mark(
            unit=unit,
            inputs=inputs,
            files=files,
            facts=dict(facts or {}),
            seconds=clock.seconds,
            peak_bytes=clock.peak_bytes(),
        )
        mark.save(mark_path(self.path, unit))
        self._progress_path(unit).unlink(missing_ok=True)
        return mark

    def _write_plan(self) -> None:
        """Say what the artifact is made with and from, for whoever looks at it before its record is there."""
        if not has_plan(self.path):
            parents = {name: parent.digest for name, parent in self.parents.items()}
            stages = {name: parent.stage for name, parent in self.parents.items()}
            plan = Plan(
                stage=self.stage,
                digest=self.digest,
                version=self.version,
                config=self.config,
                parents=parents,
                stages=stages,
            )
            plan.save(self.path / PLAN)

    def _write_bare_roots(self, marked: Container[str]) -> None:
        """Let the roots of the stores, but those that a mark covers, be bare groups, as long as units are missing."""
        for store in stores_of(self.path):
            if root_name(store) not in marked:
                write_root(store)

    def _finish_roots(self, marks: Iterable[Mark]) -> dict[str, FileStamp]:
        """Write the roots of the stores as those of a finished artifact, by the units' metadata. One that is a unit has
        its own. Raises Damaged."""
        names: set[str] = set()
        if stores := stores_of(self.path):
            for mark in marks:
                self._check_files(mark, lambda name: name.endswith(f"/{ROOT}"))
                names |= mark.files.keys()
        for store in stores:
            below = f"{store.name}/"
            if root_name(store) not in names:
                own = [name.removeprefix(below) for name in names if name.startswith(below)]
                with suppress(FileNotFoundError):  # whoever finished it just now has dropped what was half written here
                    finish_root(store, own, self._attributes)
        return {root_name(store): FileStamp.of(store / ROOT) for store in stores}

    @property
    def _attributes(self) -> dict[str, Any]:
        """What the roots of its stores say of an artifact."""
        return {"stage": self.stage, "digest": self.digest, "config": self.config}

    def drop_mark(self, unit: str) -> None:
        """Let a unit count as missing, so that the next run makes it again; its files stay."""
        mark_path(self.path, unit).unlink(missing_ok=True)

    def forget(self, unit: str | None = None) -> None:
        """Drop a unit (or everything), so that the next run makes it again."""
        if unit is None:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        mark = self.mark(unit)
        self.drop_mark(unit)
        names = mark.files if mark else {}
        self._write_bare_roots(names)
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    # --- the whole -----------------------------------------------------------------------------------

    def inputs(self) -> dict[str, str]:
        """Content of each parent, which must be done."""
        return {name: parent.content() for name, parent in self.parents.items()}

    def content(self) -> str:
        """Hash of all the artifact holds. Raises NotDone."""
        return self.record().content

    def record(self) -> Record:
        """The record of a finished artifact. Raises NotDone with the remedy."""
        record = load_saved(Record, self.path / RECORD)
        if record is None or record.digest != self.digest or record.content != sha256_of(record.units):
            raise NotDone(f"{self.stage} {self.label} ({self.path}) is not done: run that stage, or `ddoq run`, first")
        return record

    def is_done(self, *, deep: bool = False) -> bool:
        """Whether the record verifies: every unit is there, unchanged, and made from the parents as they are."""
        try:
            record = self.record()
            if record.inputs != self.inputs() or damaged_frame(self.path, record.roots):
                return False
        except NotDone:
            return False
        marks = {unit: self.mark(unit) for unit in record.units}
        return all(
            mark is not None and mark.content == record.units[unit] and not damaged_files(self.path, mark, deep=deep)
            for unit, mark in marks.items()
        )

    def mend(self) -> bool:
        """Whether the artifact is done, after what follows from the rest is written anew: its plan, the roots of its
        stores, and the record if it is made as a whole."""
        if self.is_done():
            return True
        if not self.num_marks():
            return False
        marks = list(self.marks().values())
        self._write_plan()
        with suppress(NotDone, Damaged):
            self._finish_from_mark(marks)
        with suppress(NotDone, Damaged):
            record = self.record()
            if not record.roots:  # of old
                self._write_bare_roots({name for mark in marks for name in mark.files})
            elif record.units.keys() == {mark.unit for mark in marks}:
                self._finish_roots(marks)
        return self.is_done()

    def _finish_from_mark(self, marks: Sequence[Mark]) -> None:
        """Write the record of what was made as a whole: its only unit is a folder, whose mark has the same facts."""
        unit = marks[0].unit if len(marks) == 1 else ""
        if not unit or not all(name.startswith(f"{unit}/") for name in marks[0].files):
            return
        if self.holds(unit, sha256_of(self.inputs()) if self.parents else None):  # a source's inputs are its own
            self.finish([unit], facts=marks[0].facts)

    def finish_if_whole(self, num_units: int, units: Callable[[], Mapping[str, str]]) -> None:
        """Write the record if all units are held. They are looked at only when there are marks enough."""
        if self.num_marks() >= num_units and not self.missing(wanted := units()):
            self.finish(wanted)

    def finish(self, units: Iterable[str], *, facts: Mapping[str, Any] | None = None) -> Record:
        """Write the record over these units, all of which are marked. Safe to call from several processes."""
        marks = {unit: self.mark(unit) for unit in units}
        absent = [unit for unit, mark in marks.items() if mark is None]
        if absent:
            raise NotDone(f"{self}: {len(absent)} of {len(marks)} units are missing, the first is {absent[0]}")
        present = [mark for mark in marks.values() if mark]
        contents = {mark.unit: mark.content for mark in present}
        clocks = [mark.seconds for mark in present]
        record = Record(
            stage=self.stage,
            digest=self.digest,
            version=self.version,
            config=self.config,
            parents={name: parent.digest for name, parent in self.parents.items()},
            inputs=self.inputs(),
            content=sha256_of(contents),
            units=contents,
            facts=dict(facts or {}),
            seconds={
                key: round(sum(c.get(key, 0.0) for c in clocks), 3) for key in sorted({k for c in clocks for k in c})
            },
            peak_bytes=max((mark.peak_bytes for mark in present), default=0),
            versions=versions(),
            finished=time.time(),
            roots=self._finish_roots(present),
        )
        drop_leftovers(self.path, keep=RECORD)  # which another process may be writing just now
        record.save(self.path / RECORD)
        self.checkpoint_path.unlink(missing_ok=True)
        shutil.rmtree(self.path / "progress", ignore_errors=True)
        return record

    # --- artifacts made as a whole ---------------------------------------------------------------------

    @contextmanager
    def writing(self, folder: str, clock: Clock, facts: dict[str, Any] | None = None) -> Iterator[Path]:
        """A scratch folder that becomes the artifact's only unit; on leaving, the record is written."""
        inputs = sha256_of(self.inputs())
        with clock("write"), whole_folder(self.path / folder) as scratch:
            yield scratch
            if (scratch / ROOT).exists():  # a store, whose root is then a part of the unit
                below = [file.relative_to(scratch).as_posix() for file in list_files(scratch)]
                finish_root(scratch, below, self._attributes)
        self.commit(folder, [self.path / folder], inputs=inputs, clock=clock, facts=facts)
        self.finish([folder], facts=facts)

    @property
    def checkpoint_path(self) -> Path:
        """Where a long training keeps its state until it is finished."""
        return self.path / "checkpoint.pt"

    # --- progress, for whoever watches -----------------------------------------------------------------

    def report_progress(self, done: int, total: int, note: str = "", *, unit: str = "") -> None:
        """Tell watchers how far a unit, or an artifact made as a whole, is."""
        body = canonical_json({"share": done / max(total, 1), "note": note})
        write_whole(self._progress_path(unit), body, durable=False)

    def progress(self) -> tuple[float, str]:
        """Share of the units in work that is done, added up, and their notes."""
        told = []
        for path in (self.path / "progress").glob("*.json"):
            with suppress(OSError, ValueError):
                told.append(json.loads(path.read_bytes()))
        return sum(part["share"] for part in told), ", ".join(part["note"] for part in told if part["note"])

    def _progress_path(self, unit: str) -> Path:
        return self.path / "progress" / f"{sha256_of(unit)[:12]}.json"
