"""Showing things in Prefect neither ends a run nor holds it up."""

from __future__ import annotations

import time

import pytest

import flows.publish
from flows.publish import Publisher

pytestmark = pytest.mark.slow


def test_an_answer_is_passed_on() -> None:
    assert Publisher()(divmod, 7, 2) == (3, 1)


def test_the_first_failure_is_told_in_one_line_and_is_the_last_call(caplog: pytest.LogCaptureFixture) -> None:
    publish, calls = Publisher(), []

    def fail(key: str) -> None:
        calls.append(key)
        raise ConnectionError(f"all connections failed [{key}]\nand more")

    assert [publish(fail, key) for key in ("a", "b")] == [None, None]
    assert calls == ["a"]
    [record] = caplog.records
    assert record.message.endswith("which goes on (all connections failed [a])")


def test_what_takes_too_long_is_left_to_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flows.publish, "SECONDS", 0.1)
    start = time.monotonic()
    assert Publisher()(time.sleep, 60) is None
    assert time.monotonic() - start < 10
    assert "no answer within" in caplog.text
