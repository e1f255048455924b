"""The gap between real and distilled data: nothing for the data itself, less with more prototypes."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ddoq_core import quantize
from ddoq_core.measure.gradient_gap import gradient_gap, in_batches, mean_gradient
from ddoq_core.train.networks import ClassifierSpec, build_classifier

Set = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def digits() -> Set:
    """The digits 0 to 3, 8 px."""
    data = load_digits(n_class=4)
    x = torch.from_numpy(data.images / 16).float()[:, None].expand(-1, 3, -1, -1)
    return x, torch.from_numpy(data.target).long()


def distil(real: Set, num_points: int | None, method: str = "exact") -> tuple[Set, torch.Tensor]:
    """Each class's prototypes in the space of pictures, with their counts; all of its pictures for None."""
    x, y, counts = [], [], []
    for c in range(4):
        z = real[0][real[1] == c][:, 0].flatten(1).numpy()
        found = quantize(z, num_points or len(z), method=method, seed=0)
        x.append(torch.from_numpy(found.centroids).float().view(-1, 1, 8, 8).expand(-1, 3, -1, -1))
        y.append(torch.full((len(found.counts),), c))
        counts.append(torch.from_numpy(found.counts))
    return (torch.cat(x), torch.cat(y)), torch.cat(counts)


@pytest.mark.parametrize("architecture", ["convnet-2-8", "test_resnet"])
def test_all_points_with_their_masses_have_no_gap(digits: Set, architecture: str) -> None:
    model = build_classifier(ClassifierSpec(architecture, 4, 8), seed=0)
    distilled, counts = distil(digits, None)
    assert counts.sum() == len(digits[0])
    real = mean_gradient(model, in_batches(*digits, torch.ones(len(digits[0]))))
    gap = gradient_gap(model, real, *distilled, counts)
    assert gap < 1e-4
    halved = gradient_gap(model, real, *distilled, counts / 2)
    assert halved == pytest.approx(gap, abs=1e-6), "the scale of weights does not matter"


def test_the_gap_shrinks_with_the_number_of_prototypes(digits: Set) -> None:
    model = build_classifier(ClassifierSpec("convnet-2-8", 4, 8), seed=0)
    real, distilled = (
        mean_gradient(model, in_batches(*digits, torch.ones(len(digits[0])))),
        {k: distil(digits, k) for k in (1, 5, 25, 100)},
    )
    gaps = [gradient_gap(model, real, *pictures, counts) for pictures, counts in distilled.values()]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 3 * gaps[-1], gaps


def test_the_gradient_is_the_one_of_the_weighted_loss() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False))
    x, y, w = torch.rand(5, 3, 1, 1), torch.tensor([0, 1, 1, 0, 1]), torch.tensor([1.0, 2.0, 0.0, 3.0, 1.0])
    found = mean_gradient(model, in_batches(x, y, w, size=2))
    p = torch.softmax(model(x), 1) - torch.eye(2)[y]
    expected = (p * w[:, None]).T @ x.flatten(1) / 7
    torch.testing.assert_close(found.float(), expected.flatten())
    assert model.training and all(q.grad is None for q in model.parameters())
