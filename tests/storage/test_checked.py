"""JSON files that say their own checksum."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.files import read_checked, write_checked


def test_a_digit_that_changes_no_number_is_seen(tmp_path: Path) -> None:
    path, number, same = tmp_path / "record.json", "0.5966836068370887", "0.5966836068370886"
    assert float(number) == float(same)
    write_checked(path, {"loss": float(number), "note": "ü"})
    assert read_checked(path) == {"loss": float(number), "note": "ü"}
    path.write_text(path.read_text().replace(number, same))
    with pytest.raises(ValueError, match=r"record\.json is not as it was written"):
        read_checked(path)


def test_one_of_old_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"b":1,  "a": 2}')
    assert read_checked(tmp_path / "plan.json") == {"a": 2, "b": 1}
