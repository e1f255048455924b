"""How long a stage will take yet, by how it has moved."""

from __future__ import annotations

import pytest

from flows.progress import Move, Pace


def test_an_even_pace_is_continued_and_the_clock_runs_between_moves() -> None:
    pace = Pace()
    assert [pace.left(Move(0.0, at)) for at in (0, 30)] == [None, None], "what has not begun has no pace"
    told = [pace.left(Move(k / 10, 30 + 10 * k)) for k in range(1, 10)]
    assert told == [None, *(pytest.approx(100 - 10 * k) for k in range(2, 10))]
    assert pace.left(Move(0.9, 124)) == pytest.approx(6)
    assert pace.left(Move(0.9, 135)) is None, "it should have ended"
    assert pace.left(Move(1.0, 140)) is None


def test_a_training_that_had_to_share_its_cores_at_first_is_told_by_its_newer_pace() -> None:
    pace, share, at = Pace(), 0.0, 0.0
    while share < 0.5:
        at += 1
        share += 0.001 if at < 240 else 0.002
        left = pace.left(Move(share, at))
    assert left == pytest.approx(250, rel=0.25), "by its whole time it would be 370"


def test_a_stage_that_waited_for_another_is_told_by_its_newer_pace() -> None:
    pace = Pace()
    for k in range(1, 11):
        pace.left(Move(k / 90, k))
    told = [pace.left(Move(k / 90, 800 + 5 * k)) for k in range(11, 46)]
    assert told[-1] == pytest.approx(5 * 45, rel=0.25)


def test_a_task_that_begins_anew_has_no_pace_until_it_has_moved_again() -> None:
    pace = Pace()
    for share, at in [(0.1, 10), (0.2, 20), (0.3, 30)]:
        pace.left(Move(share, at))
    assert [pace.left(Move(share, at)) for share, at in [(0.1, 40), (0.1, 50)]] == [None, None], "back where it began"
    assert pace.left(Move(0.2, 60)) == pytest.approx(20 * 8)
