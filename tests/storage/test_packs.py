"""Packs: neighbouring small classes together, by their names and sizes alone."""

from __future__ import annotations

import pytest

from storage.packs import BLOCK_IMAGES, PACK_CLASSES, PACK_PICTURES, PACKS_AT_LEAST, packed


@pytest.mark.parametrize("size", [1, 10, 63, 500, 1300, 5000])
@pytest.mark.parametrize("num_classes", [1, 10, 40, 1000])
@pytest.mark.parametrize("most", [PACK_PICTURES, BLOCK_IMAGES])
def test_every_class_is_in_one_pack_in_order(size: int, num_classes: int, most: int) -> None:
    names = [f"n{k:04d}" for k in range(num_classes)]
    packs = packed(tuple((name, size) for name in names), most)
    assert [name for own in packs.classes.values() for name in own] == names
    assert len(packs.classes) >= min(PACKS_AT_LEAST, num_classes)
    for pack, own in packs.classes.items():
        assert len(own) == 1 or (len(own) <= PACK_CLASSES and len(own) * size <= most)
        assert [packs.place(name) for name in own] == [(pack, k) for k in range(len(own))]
        assert pack == own[0] if len(own) == 1 else pack == f"{own[0]}..{own[-1]}"


def test_a_thousand_small_classes_are_few_packs() -> None:
    sizes = tuple((f"n{k:04d}", 1) for k in range(1000))
    assert all(len(packed(sizes, most).classes) <= 34 for most in (PACK_PICTURES, BLOCK_IMAGES))


def test_a_large_class_among_small_ones_is_alone() -> None:
    sizes = {f"n{k}": 3000 if k == 20 else 5 for k in range(40)}
    packs = packed(tuple(sizes.items()), BLOCK_IMAGES)
    assert packs.classes["n20"] == ("n20",) and packs.totals(sizes)["n20"] == 3000
    assert sum(packs.totals(sizes).values()) == sum(sizes.values())


def test_a_class_that_is_called_as_a_pack_has_its_own() -> None:
    names = tuple(f"{k:02d}" for k in range(32))
    packs = packed((*((name, 1) for name in names), ("00..07", 100)), BLOCK_IMAGES)
    assert packs.classes["00..07"] == ("00..07",) and packs.classes["00..07."] == names[:8]
