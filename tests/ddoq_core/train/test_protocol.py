"""How a classifier is trained: what is refused, and what values are taken to be equal."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from ddoq_core.train.protocol import Augmentation, Protocol


def test_a_negative_shift_is_refused() -> None:
    assert Augmentation(shift_px=0) == Augmentation()
    with pytest.raises(ValueError, match="shift_px must be 0 or more, got -1"):
        Augmentation(shift_px=-1)


def test_a_protocol_is_its_values_and_stays_as_it_is() -> None:
    one, other = (Protocol(num_epochs=3, batch_size=8, augmentation=Augmentation(flip=True)) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    with pytest.raises(FrozenInstanceError):
        one.num_epochs = 4  # type: ignore[misc]
