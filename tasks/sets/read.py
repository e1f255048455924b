"""Opening a given set, whatever its format, and bringing its labels to the classes of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.recipe.recipe import Recipe
from tasks.recipe.settings import DecodeConfig
from tasks.sets.folder import open_folder
from tasks.sets.given import GivenSet, SetError
from tasks.sets.tables import open_tables, table_files
from tasks.sets.tars import open_tars, tar_files
from tasks.sets.tensors import Scale, is_tensors, open_tensors

SORTED = "sorted"  # a class order: the recipe's own
MOST_LUCK = 0.5  # by which labels and soft labels may agree better in another order, and by 1/√N more


@dataclass(frozen=True)
class FittedSet:
    """A given set in the classes of a recipe.

    rows  by class, in label order, the rows of its pictures
    own   (C,) the set's number of each class of the recipe, for its logits
    """

    given: GivenSet
    rows: tuple[NDArray[np.int64], ...]
    own: NDArray[np.int64]

    @property
    def ipc(self) -> int:
        """Images per class."""
        return len(self.rows[0])


def open_set(config: DecodeConfig) -> GivenSet:
    """The set that a method names. Raises SetError."""
    path = Path(config.path or "").expanduser()
    try:
        if not path.exists():
            raise SetError(f"there is no distilled set at {path}: check decode.path")
        path = path.resolve()  # who gives a link means what it leads to; links inside must not lead out
        if tars := tar_files(path):
            return open_tars(path, tars)
        if is_tensors(path):
            return open_tensors(path, Scale(config.value_range, config.mean, config.std))
        if tables := table_files(path):
            return open_tables(path, tables)
        if not path.is_dir():
            raise SetError(f"{path} is no distilled set that can be read: give a folder, .pt, .npz, .parquet or .tar")
        return open_folder(path)
    except OSError as error:
        raise SetError(f"{path} cannot be read ({error.strerror or error}): check decode.path") from error


def fit(given: GivenSet, classes: Sequence[str], class_order: str | None) -> FittedSet:
    """The set in these classes. Raises SetError where its own are others, or nothing says which are which."""
    names = _names(given, classes, class_order)
    number = _matched(names, classes, given.path)  # of the set's class k, ours
    if len(given.labels) and given.labels.max() >= len(names):
        raise SetError(f"{given.path}: label {given.labels.max()} is beyond its {len(names)} classes: mend the labels")
    if given.logits is not None:
        if given.logits.shape[1] != len(names):
            raise SetError(
                f"{given.path}: its soft labels are of {given.logits.shape[1]} classes, and it has {len(names)}: give "
                "them for the same classes"
            )
        _check_order(given)
    own = np.empty(len(classes), np.int64)
    own[number] = np.arange(len(names))
    rows = tuple(np.flatnonzero(given.labels == k) for k in own)
    counts = [len(part) for part in rows]
    if 0 in counts:
        absent = [name for name, count in zip(classes, counts, strict=True) if not count]
        raise SetError(f"{given.path} has no picture of {len(absent)} classes, the first is {absent[0]!r}: add them")
    if len(set(counts)) > 1:
        few, many = min(counts), max(counts)
        raise SetError(
            f"{given.path} has {few} pictures of {classes[counts.index(few)]!r} and {many} of "
            f"{classes[counts.index(many)]!r}: give the same number of each class"
        )
    return FittedSet(given, rows, own)


def images_per_class(given: GivenSet) -> int:
    """How many pictures a set has of each class, by the classes that it has pictures of. Raises SetError where it has
    more of some."""
    counts = np.bincount(given.labels)
    found = set(counts[counts > 0].tolist())
    if len(found) != 1:
        few, many = (min(found), max(found)) if found else (0, 0)
        raise SetError(f"{given.path} has {few} to {many} pictures of a class: give the same number of each")
    return int(found.pop())


def check_given(recipe: Recipe, classes: Sequence[str]) -> None:
    """Raise SetError, before a run, for a given set that is not one of these classes; where they are not known yet, for
    one that cannot be read."""
    for config in recipe.given.values():
        given = open_set(config)
        if classes:
            check_ipc(fit(given, classes, config.class_order), recipe.ipc)
        check_pictures(given, config)


_looked_through: set[tuple[str, str]] = set()  # contents and how they were read, in this process


def check_pictures(given: GivenSet, config: DecodeConfig) -> None:
    """Raise SetError for a set whose pictures are none as they are explained. All of one are looked through once."""
    key = given.content(), config.model_dump_json(include={"value_range", "mean", "std"})
    if key not in _looked_through:
        given.check()
        _looked_through.add(key)


def check_ipc(fitted: FittedSet, ipc: int) -> None:
    """Raise SetError for a set of another number of images per class."""
    if fitted.ipc != ipc:
        raise SetError(f"{fitted.given.path} has {fitted.ipc} images per class, not {ipc}: set --ipc {fitted.ipc}")


def _names(given: GivenSet, classes: Sequence[str], class_order: str | None) -> tuple[str, ...]:
    """The names of the set's classes in the order of its numbers."""
    if class_order is None:
        if given.classes is None:
            raise SetError(
                f"{given.path} has bare numbers for labels: say which class each is, by --class-order sorted for "
                f"{_few(classes)}, or by names in their order"
            )
        return given.classes
    names = tuple(classes) if class_order == SORTED else _listed(class_order, given.path)
    num = len(given.classes) if given.classes else int(given.labels.max()) + 1
    if len(names) < num:
        raise SetError(f"--class-order has {len(names)} names, and {given.path} {num} classes: name each")
    return names


def _listed(order: str, path: Path) -> tuple[str, ...]:
    """Names between commas, or the lines of a file."""
    file = Path(order).expanduser()
    if file.is_file():
        return tuple(line.strip() for line in file.read_text().splitlines() if line.strip())
    if "," not in order:
        raise SetError(f"--class-order {order!r} for {path}: give 'sorted', names between commas, or a file of names")
    return tuple(name.strip() for name in order.split(","))


def _matched(names: Sequence[str], classes: Sequence[str], path: Path) -> NDArray[np.int64]:
    """Which class of the recipe each name is: by the same name, else by ImageNet's names and WordNet ids."""
    exact = {name: k for k, name in enumerate(classes)}
    known = {} if exact.keys() >= set(names) else _by_alias(classes)
    found: list[int] = []
    for name in names:
        alike = {exact[name]} if name in exact else set[int]().union(*(known.get(a, set()) for a in _aliases(name)))
        if len(alike) != 1:
            bare = all(other.isdigit() for other in names)
            remedy = "say which is which by --class-order" if bare else "rename it, or leave it out"
            raise SetError(f"{path} has a class {name!r}, which is none of {_few(classes)}: {remedy}")
        found.append(alike.pop())
    twice = next((k for k in found if found.count(k) > 1), None)
    if twice is not None:
        raise SetError(f"{path}: two of its classes are {classes[twice]!r}: join them")
    absent = sorted(set(range(len(classes))) - set(found))
    if absent:
        raise SetError(f"{path} has no class {classes[absent[0]]!r} ({len(absent)} are missing): add them")
    return np.array(found, np.int64)


def _by_alias(classes: Sequence[str]) -> dict[str, set[int]]:
    """The numbers of the classes that may be called so."""
    found: dict[str, set[int]] = {}
    for k, name in enumerate(classes):
        for alias in _aliases(name):
            found.setdefault(alias, set()).add(k)
    return found


def _aliases(name: str) -> set[str]:
    """What else a class may be called."""
    from ddoq_core.imagenet import describe

    return {" ".join(part.lower().replace("_", " ").split()) for part in (name, *describe(name).split(", "))}


def _check_order(given: GivenSet) -> None:
    """Raise SetError for labels and logits that would agree much better with the classes in another order."""
    from ddoq_core.train.accuracy import best_reordering

    assert given.logits is not None
    agree = float((given.logits.argmax(1) == given.labels).mean())
    if best_reordering(given.logits, given.labels) > agree + MOST_LUCK + len(given.labels) ** -0.5:
        raise SetError(
            f"{given.path}: its soft labels name the class of {agree:.0%} of its pictures, and with their classes in "
            "another order of most: bring both into one order"
        )


def _few(classes: Sequence[str]) -> str:
    return ", ".join(classes[:3]) + (f", … ({len(classes)})" if len(classes) > 3 else "")
