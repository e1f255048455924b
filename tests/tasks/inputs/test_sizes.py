"""Minutes become steps: by what a step takes here, once for a root."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ddoq_core.train import students, teachers
from flows.catalogue import load_recipe
from storage.errors import UsageError
from tasks.inputs import sizes
from tasks.inputs.sizes import sized
from tests.tasks.conftest import TINY, Pipeline

OPEN = ["autoencoder.train.num_steps", "prior.train.num_steps", "teacher.num_epochs"]


def test_minutes_become_steps_of_every_model_that_is_trained(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = load_recipe("digits").with_changes(TINY)
    short, long = (sized(tiny.within(minutes), pipeline.index, tmp_path) for minutes in (1, 100))
    for name in OPEN:
        of = [recipe.model_dump() for recipe in (short, long)]
        for part in name.split("."):
            of = [tree[part] for tree in of]
        assert 1 <= of[0] < of[1] / 10, name
    assert short.left_open == []

    monkeypatch.setattr(sizes, "_fitting", lambda *_: pytest.fail("measured again"))
    again = sized(tiny.within(1).with_changes({"seeds": [5], "methods": {"one": {}}}), pipeline.index, tmp_path)
    assert again == short.with_changes({"seeds": [5], "methods": {"one": {}}}), "what is added to a run changes nothing"


def test_students_get_no_more_epochs_than_fit(pipeline: Pipeline, tmp_path: Path) -> None:
    digits = load_recipe("digits").with_changes({**TINY, "train.num_epochs": None})
    short, long = (sized(digits.within(minutes), pipeline.index, tmp_path) for minutes in (0.01, 100))
    assert short.train.num_epochs == sizes.AT_LEAST
    assert long.train.num_epochs == 200, "the protocol's, which there is time for"


def test_steps_are_timed_with_one_thread_as_workers_have(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"student": set(), "teacher": set()}
    for name, module in (("student", students), ("teacher", teachers)):
        watched = partial(_noting, getattr(module, f"train_{name}"), threads[name])
        monkeypatch.setattr(module, f"train_{name}", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        sized(load_recipe("digits").with_changes(TINY).within(1), pipeline.index, tmp_path)
        assert torch.get_num_threads() == 2, "as it was"
    finally:
        torch.set_num_threads(before)
    assert threads == {"student": {1}, "teacher": {1}}


def _noting(train: Callable[..., Any], threads: set[int], *given: Any) -> Any:
    threads.add(torch.get_num_threads())
    return train(*given)


def test_a_small_last_batch_is_no_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 pictures in batches of 64 the second is of 36: nearly a third of the epochs would be left out."""
    monkeypatch.setattr(sizes.Watch, "seconds", 0.64)
    recipe = load_recipe("folder").with_changes({"ipc": 10, "images.size_px": 16, "train.batch_size": 64})
    assert sizes._seconds_of_student(recipe, 10) == pytest.approx(1.0)


def test_models_of_another_number_of_images_per_class_are_the_same(pipeline: Pipeline, tmp_path: Path) -> None:
    tiny = load_recipe("digits").with_changes(TINY).within(1)
    few, many = (sized(tiny.with_changes({"ipc": ipc}), pipeline.index, tmp_path) for ipc in (2, 7))
    assert (few.autoencoder, few.prior, few.teacher) == (many.autoencoder, many.prior, many.teacher)


def test_what_is_set_stays(pipeline: Pipeline, tmp_path: Path) -> None:
    recipe = load_recipe("digits").with_changes({**TINY, "minutes": 1, "teacher.num_epochs": None})
    found = sized(recipe, pipeline.index, tmp_path)
    assert found.teacher.num_epochs is not None
    open_ones = {"teacher.num_epochs": found.teacher.num_epochs, "train.num_epochs": found.train.num_epochs}
    assert found == recipe.with_changes(open_ones)
    closed = load_recipe("digits")
    assert sized(closed, pipeline.index, tmp_path) is closed


def test_an_open_length_without_minutes_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"teacher\.num_epochs is left open: set it, or minutes=30"):
        load_recipe("digits").with_changes({"teacher.num_epochs": None})
    with pytest.raises(UsageError, match="greater than 0"):
        from flows.catalogue import within

        within(load_recipe("digits"), 0)
