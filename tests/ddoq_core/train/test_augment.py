"""Augmentation: each picture on its own, the same from the same generator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from ddoq_core.train.augment import Draws, apply, draw
from ddoq_core.train.protocol import Augmentation

SETTINGS: list[dict[str, Any]] = [
    {},
    {"shift_px": 2},
    {"flip": True},
    {"resized_crop": (0.08, 1.0)},
    {"shift_px": 1, "flip": True, "resized_crop": (0.5, 1.0)},
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 16, size: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=seeded(seed))


def augment(x: torch.Tensor, generator: torch.Generator, **settings: Any) -> torch.Tensor:
    return apply(x, draw(len(x), x.shape[-1], Augmentation(**settings), generator))


def cutmix(x: torch.Tensor, w: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    draws = draw(len(x), x.shape[-1], Augmentation(cutmix=True), generator)
    return apply(x, draws), draws.mix(w, x.shape[-1])


@pytest.mark.parametrize("settings", SETTINGS)
def test_shape_and_range_are_kept_and_the_input_is_untouched(settings: dict[str, Any]) -> None:
    x = pictures()
    before = x.clone()
    out = augment(x, seeded(), **settings)
    assert out.shape == x.shape and out.dtype == x.dtype and torch.equal(x, before)
    assert out.min() >= x.min() - 1e-6 and out.max() <= x.max() + 1e-6


@pytest.mark.parametrize("settings", SETTINGS[1:])
def test_the_generator_alone_decides(settings: dict[str, Any]) -> None:
    x = pictures()
    assert torch.equal(augment(x, seeded(), **settings), augment(x, seeded(), **settings))
    assert not torch.equal(augment(x, seeded(), **settings), augment(x, seeded(5), **settings))


@pytest.mark.parametrize("settings", SETTINGS[1:])
def test_a_picture_does_not_see_its_neighbours_and_goes_its_own_way(settings: dict[str, Any]) -> None:
    x = pictures()
    out = augment(x, seeded(), **settings)
    other = x.clone()
    other[1:] = pictures(15, seed=9)
    assert torch.equal(augment(other, seeded(), **settings)[0], out[0])
    same = augment(x[:1].expand_as(x), seeded(), **settings)
    assert len({tuple(p.flatten().tolist()) for p in same}) > 1


def test_nothing_is_asked_nothing_is_done() -> None:
    x = pictures()
    assert torch.equal(augment(x, seeded()), x)


def test_a_shift_moves_by_whole_pixels_and_repeats_the_edge() -> None:
    size, most = 8, 2
    ramp = torch.arange(size).float().expand(size, size)  # the value is the column, in channel 1 the row
    x = torch.stack([ramp, ramp.T, ramp]).expand(64, 3, size, size)
    out = augment(x, seeded(), shift_px=most)
    seen = set()
    for picture in out:
        dx, dy = int(picture[0, 0, size // 2]) - size // 2, int(picture[1, size // 2, 0]) - size // 2
        at = torch.arange(size)
        assert torch.equal(picture[0], (at + dx).clamp(0, size - 1).float().expand(size, size))
        assert torch.equal(picture[1], (at + dy).clamp(0, size - 1).float().expand(size, size).T)
        seen.add((dy, dx))
    steps = range(-most, most + 1)
    assert seen <= {(a, b) for a in steps for b in steps} and len(seen) > 15


def test_what_was_drawn_is_done() -> None:
    x = torch.arange(2 * 3 * 4 * 4).float().view(2, 3, 4, 4)
    moved = apply(x, Draws(shift=torch.tensor([[1, 0], [0, -1]])))
    assert torch.equal(moved[0], x[0, :, [1, 2, 3, 3]]) and torch.equal(moved[1], x[1][:, :, [0, 0, 1, 2]])
    mirrored = apply(x, Draws(flip=torch.tensor([False, True])))
    assert torch.equal(mirrored[0], x[0]) and torch.equal(mirrored[1], x[1, :, :, [3, 2, 1, 0]])
    left_half = apply(x, Draws(crop=torch.tensor([[1.0, 0.5, 0.0, -0.5], [1.0, 1.0, 0.0, 0.0]])))
    torch.testing.assert_close(left_half[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.25]))
    torch.testing.assert_close(left_half[1], x[1])
    mixed = apply(x, Draws(box=torch.tensor([0, 2, 1, 4]), partner=torch.tensor([1, 0])))
    assert torch.equal(mixed[0, :, :2, 1:], x[1, :, :2, 1:]) and torch.equal(mixed[0, :, 2:], x[0, :, 2:])


def test_without_cutmix_nothing_is_mixed() -> None:
    w = torch.tensor([1.0, 2.0])
    assert Draws().kept(8) == 1.0 and torch.equal(Draws().mix(w, 8), w) and torch.equal(Draws().other(w), w)


def test_the_share_that_cutmix_keeps_by_hand() -> None:
    draws = Draws(box=torch.tensor([1, 3, 0, 4]), partner=torch.tensor([1, 0]))
    assert draws.kept(8) == pytest.approx(1 - 8 / 64)
    torch.testing.assert_close(draws.mix(torch.tensor([1.0, 3.0]), 8), torch.tensor([1.25, 2.75]))


def test_a_flip_mirrors_about_half_of_the_pictures() -> None:
    x = pictures(400)
    out = augment(x, seeded(), flip=True)
    mirrored = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(out, x, strict=True)])
    kept = torch.tensor([torch.equal(a, b) for a, b in zip(out, x, strict=True)])
    assert (mirrored ^ kept).all() and 150 < int(mirrored.sum()) < 250


@pytest.mark.parametrize("smallest", [0.08, 0.5])
@pytest.mark.parametrize("size", [32, 224])
def test_crops_are_drawn_as_torchvision_draws_them(smallest: float, size: int) -> None:
    crops = draw(20_000, size, Augmentation(resized_crop=(smallest, 1.0)), seeded()).crop
    assert crops is not None
    picture = torch.empty(3, size, size)
    torch.manual_seed(0)
    theirs = [RandomResizedCrop.get_params(picture, [smallest, 1.0], [3 / 4, 4 / 3]) for _ in range(20_000)]
    top, left, h, w = torch.tensor(theirs).T / size
    ours = {"h": crops[:, 0], "w": crops[:, 1], "area": crops[:, 0] * crops[:, 1], "y": crops[:, 2], "x": crops[:, 3]}
    want = {"h": h, "w": w, "area": h * w, "y": 2 * top + h - 1, "x": 2 * left + w - 1}
    for name, values in ours.items():
        assert ks_2samp(values.numpy().round(4), want[name].numpy().round(4)).statistic < 0.02, name
    assert float(ours["area"].mean()) == pytest.approx(float(want["area"].mean()), abs=0.005)


def test_a_crop_takes_the_share_it_was_asked_for() -> None:
    size, share = 64, 0.25
    at = (torch.arange(size) + 0.5) / size
    x = torch.stack([at.expand(size, size), at.expand(size, size).T, torch.zeros(size, size)]).expand(50, -1, -1, -1)
    out = augment(x, seeded(), resized_crop=(share, share))
    w = (out[:, 0, 0, -1] - out[:, 0, 0, 0]) * size / (size - 1)
    h = (out[:, 1, -1, 0] - out[:, 1, 0, 0]) * size / (size - 1)
    torch.testing.assert_close(w * h, torch.full((50,), share), rtol=0.04, atol=0)  # in whole pixels
    assert (w / h).min() > 3 / 4 - 0.02 and (w / h).max() < 4 / 3 + 0.02 and (w / h).std() > 0.05


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_weights_follow_the_pasted_area(seed: int) -> None:
    n, size = 6, 8
    x = torch.arange(n).float().view(n, 1, 1, 1).expand(n, 3, size, size)  # a picture's colour is its number
    w = torch.tensor([0.5, 1.0, 2.0, 0.25, 1.5, 0.75])
    mixed, v = cutmix(x, w, seeded(seed))
    pasted = torch.zeros(size, size, dtype=torch.bool)
    for i in range(n):
        pasted |= (mixed[i] != i).any(0)
    share = pasted.float().mean().item()
    rows, cols = pasted.any(1), pasted.any(0)
    assert torch.equal(pasted, rows[:, None] & cols[None, :])  # one box
    for i in range(n):
        others = mixed[i, 0][pasted]
        other = int(others[0]) if len(others) else i
        assert (mixed[i][:, pasted] == other).all() and (mixed[i][:, ~pasted] == i).all()
        assert v[i].item() == pytest.approx((1 - share) * w[i].item() + share * w[other].item())


def test_cutmix_keeps_half_of_the_area_on_average_and_weights_that_are_equal() -> None:
    x, w = pictures(2, size=32), torch.full((2,), 1.5)
    shares = []
    for seed in range(300):
        mixed, v = cutmix(x, w, seeded(seed))
        torch.testing.assert_close(v, w)
        if not torch.equal(mixed, x):
            shares.append((mixed == x).float().mean().item())
    assert 0.45 < sum(shares) / len(shares) < 0.75  # Beta(1, 1) has mean 1/2; boxes at the edge are smaller
