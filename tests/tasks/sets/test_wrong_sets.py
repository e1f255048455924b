"""Sets that are not the recipe's, or not whole: each is refused in one line that names it, and nothing of it is run."""

from __future__ import annotations

import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tasks.recipe.settings import DecodeConfig
from tasks.sets.given import SetError
from tasks.sets.read import check_ipc, check_pictures, fit, images_per_class, open_set

NAMES = ("bird", "cat", "dog")
IPC, SIDE = 2, 16
N = len(NAMES) * IPC
X, Y = torch.full((N, 3, SIDE, SIDE), 7, dtype=torch.uint8), torch.arange(N) % len(NAMES)
FLOATS = torch.linspace(0, 1, SIDE).expand(N, 3, SIDE, SIDE).contiguous()  # a slope: pictures that can be shown
SORTED, SORTED_BY_NAME = {"class_order": "sorted"}, {"class_order": "bird,cat,dog"}


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def tensors(place: Path, **fields: Any) -> Path:
    torch.save({"images": X, "labels": Y, **fields}, place / "set.pt")
    return place / "set.pt"


def folders(place: Path, *names: str, count: int = IPC) -> Path:
    for name in names:
        (place / name).mkdir()
        for k in range(count):
            Image.new("RGB", (8, 8)).save(place / name / f"{k}.png")
    return place


def whitened(place: Path) -> Path:
    noise = torch.randn(N, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return tensors(place, images=noise)


def code(place: Path) -> Path:
    torch.save({"images": X, "labels": Y, "more": Bomb(place / "ran")}, place / "set.pt")
    return place / "set.pt"


def old_code(place: Path) -> Path:
    (place / "set.pt").write_bytes(pickle.dumps(Bomb(place / "ran")))
    return place / "set.pt"


def objects(place: Path) -> Path:
    np.savez(place / "set.npz", images=np.array([Bomb(place / "ran")], dtype=object), labels=Y)
    return place / "set.npz"


def link_out(place: Path) -> Path:
    inside = folders_in(place / "set", *NAMES)
    secret = place / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    (inside / "cat" / "0.png").unlink()
    (inside / "cat" / "0.png").symlink_to(secret)
    return inside


def folders_in(place: Path, *names: str) -> Path:
    place.mkdir()
    return folders(place, *names)


def unequal(place: Path) -> Path:
    (folders(place, *NAMES) / "dog" / "1.png").unlink()
    return place


def broken(place: Path) -> Path:
    (folders(place, *NAMES) / "dog" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return place


def several(place: Path) -> Path:
    tensors(place).rename(place / "one.pt")
    tensors(place).rename(place / "two.pt")
    return place


def parquet(place: Path, **columns: Any) -> Path:
    png = (folders_in(place / "png", "one") / "one" / "0.png").read_bytes()
    held = {"image": [{"bytes": png, "path": None}] * N, "label": Y.tolist(), **columns}
    pq.write_table(pa.table({name: value for name, value in held.items() if value is not None}), place / "a.parquet")
    return place / "a.parquet"


def tar_without_labels(place: Path) -> Path:
    source = folders_in(place / "png", "one") / "one" / "0.png"
    with tarfile.open(place / "a.tar", "w") as tar:
        tar.add(source, "0.png")
    return place / "a.tar"


def stated(place: Path, text: str) -> Path:
    (place / "set.json").write_text(text)
    return tensors(place, images=FLOATS)


def swapped_logits(place: Path) -> Path:
    logits = torch.nn.functional.one_hot((torch.arange(60) + 1) % 3, 3).float() * 5
    images = torch.zeros(60, 3, 4, 4, dtype=torch.uint8)
    return tensors(place, images=images, labels=torch.arange(60) % 3, logits=logits)


WRONG: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "no set": (lambda p: p / "nowhere", {}, "there is no distilled set at"),
    "an empty folder": (lambda p: p, {}, "holds no distilled set"),
    "another kind of file": (lambda p: (p / "a.zip").write_bytes(b"x") and p / "a.zip", {}, "no distilled set"),
    "bare numbers": (tensors, {}, "bare numbers for labels: say which class each is, by --class-order sorted"),
    "an order of too few": (tensors, {"class_order": "bird,cat"}, "--class-order has 2 names, and .* 3 classes"),
    "an order that is none": (tensors, {"class_order": "alphabetic"}, "--class-order 'alphabetic'"),
    "an order of other names": (tensors, {"class_order": "bird,cat,cow"}, "class 'cow', which is none of bird"),
    "numbered folders": (lambda p: folders(p, "0", "1", "2"), {}, "class '0'.* say which is which by --class-order"),
    "a missing class": (lambda p: folders(p, "bird", "cat"), {}, "has no class 'dog'"),
    "an extra class": (lambda p: folders(p, *NAMES, "cow"), {}, "class 'cow', which is none of"),
    "a class twice": (lambda p: folders(p, *NAMES, "Dog"), {}, "two of its classes are 'dog'"),
    "a class without pictures": (lambda p: tensors(p, labels=Y.clamp(max=1)), SORTED_BY_NAME, "no picture of"),
    "unequal classes": (unequal, {}, "1 pictures of 'dog' and 2 of 'bird'|1 pictures of 'dog' and 2"),
    "another number": (lambda p: folders(p, *NAMES, count=3), {}, "has 3 images per class, not 2: set --ipc 3"),
    "a label too high": (lambda p: tensors(p, labels=Y + 1, classes=[*NAMES]), {}, "label 3 is beyond its 3 classes"),
    "labels of halves": (lambda p: tensors(p, labels=Y / 2), SORTED, "no whole numbers from 0 on"),
    "labels too few": (lambda p: tensors(p, labels=Y[:-1]), SORTED, "6 pictures and 5 labels"),
    "no labels": (lambda p: torch.save(X, p / "images.pt") or p / "images.pt", SORTED, "holds no labels"),
    "soft labels of two classes": (lambda p: tensors(p, logits=torch.zeros(N, 2)), SORTED, "soft labels are of 2"),
    "soft labels in another order": (swapped_logits, SORTED, "soft labels name the class of 0% .* another order"),
    "weights below 0": (lambda p: tensors(p, weights=torch.full((N,), -1.0)), SORTED, "weights are not 6 finite"),
    "floats unexplained": (lambda p: tensors(p, images=FLOATS), SORTED, "floats from 0 to 1, and nothing says"),
    "another range": (
        lambda p: tensors(p, images=FLOATS * 255), {**SORTED, "value_range": (0, 1)}, "outside what is stated",
    ),
    "NaN": (
        lambda p: tensors(p, images=FLOATS.clone().index_fill_(0, torch.tensor(2), torch.nan)),
        {**SORTED, "value_range": (0, 1)}, "NaN or infinity",
    ),
    "whitened, as a range": (whitened, {**SORTED, "value_range": (0, 1)}, "undo the whitening"),
    "whitened, as normalised": (whitened, {**SORTED, "mean": (0.5,), "std": (0.1,)}, "whitened by ZCA"),
    "four channels": (lambda p: tensors(p, images=X[:, [0, 1, 2, 2]]), SORTED, r"of shape \(6, 4, 16, 16\)"),
    "numbers no pixels": (lambda p: tensors(p, images=X.int() * 99), SORTED, "from 693 to 693 are no pixels"),
    "a pickle with code": (code, SORTED, "pickle of more than tensors, which could run code and is not opened"),
    "an older pickle with code": (old_code, SORTED, "could run code and is not opened|cannot be read"),
    "an array of objects": (objects, SORTED, "save plain arrays"),
    "half a file": (lambda p: (q := tensors(p)).write_bytes(q.read_bytes()[:900]) and q, SORTED, "cannot be read"),
    "a link out": (link_out, {}, "a link that leads out of the set"),
    "a broken picture": (broken, {}, "picture .*1.png cannot be read"),
    "several files": (several, SORTED, "holds several files of tensors"),
    "a set.json that is none": (lambda p: stated(p, "[1]"), {}, "holds no JSON object"),
    "a set.json of half a scale": (lambda p: stated(p, '{"mean": [0]}'), SORTED, "mean and std"),
    "names that are none": (lambda p: stated(p, '{"classes": [1, 2, 3]}'), {}, "no list of names"),
    "Parquet without labels": (lambda p: parquet(p, label=None), {}, "has the columns image: call one 'label'"),
    "Parquet of bare numbers": (parquet, {}, "bare numbers"),
    "Parquet without its pictures": (
        lambda p: parquet(p, image=[{"bytes": None, "path": "/etc/passwd"}] * N), SORTED, "lies elsewhere",
    ),
    "a tar without labels": (tar_without_labels, {}, "has no .cls"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_set_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    make, settings, message = WRONG[kind]
    path = make(tmp_path)
    config = DecodeConfig(method="given", path=str(path), **settings)
    with pytest.raises(SetError, match=message) as refused:
        fitted = fit(open_set(config), NAMES, config.class_order)
        check_ipc(fitted, IPC)
        check_pictures(fitted.given, config)
        for rows in fitted.rows:
            for row in rows:
                fitted.given.picture(int(row))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500
    assert not (tmp_path / "ran").exists(), "nothing of it was run"


def test_a_set_is_counted_before_its_classes_are_known(tmp_path: Path) -> None:
    config = DecodeConfig(method="given", path=str(tensors(tmp_path)))
    assert images_per_class(open_set(config)) == IPC
    with pytest.raises(SetError, match="1 to 2 pictures of a class"):
        images_per_class(open_set(DecodeConfig(method="given", path=str(unequal(folders_place(tmp_path))))))


def folders_place(place: Path) -> Path:
    (place / "folders").mkdir()
    return place / "folders"


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        ({"method": "given"}, "set decode.path"),
        ({"path": "x"}, "path is of a given set"),
        ({"labels": "own"}, "labels is of a given set"),
        ({"method": "given", "path": "x", "mean": [0.5]}, "mean and std go together"),
        ({"method": "given", "path": "x", "value_range": [1, 0]}, "value_range is"),
        ({"method": "given", "path": "x", "mosaic": 2}, "leave decode.mosaic out"),
    ],
)
def test_settings_that_mean_nothing_are_refused(decode: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecodeConfig(**decode)
