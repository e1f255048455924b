"""What arXiv 2501.07681 reports (top-1 in per cent), and which cell of a comparison would be the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from storage.index import Index
from tasks.recipe.recipe import Recipe

R18, R101 = "resnet18", "resnet101"
TEACHER = "resnet18.tv_in1k"  # torchvision's first weights, 69.8 %, as SRe2L and D4M label with; timm's own are others
DDOQ, D4M = "stream-sqrt-diffusion", "stream-d4m-uniform-diffusion"  # cells of tasks.recipe.matrix, by name


class Published(NamedTuple):
    """A number of the paper: labels of a ResNet-18, one pass of mini-batch k-means; the cell's name as in Matrix."""

    num_classes: int
    prior: str
    student: str
    ipc: int
    cell: str
    top1: float


def _imagenet() -> Iterator[Published]:
    for ipc, ddoq, d4m in ((10, 33.1, 27.9), (50, 56.2, 55.2), (100, 60.1, 59.3), (200, 63.4, 62.6)):
        yield Published(1000, "stable-diffusion", R18, ipc, DDOQ, ddoq)
        yield Published(1000, "stable-diffusion", R18, ipc, D4M, d4m)
    others = {R101: (200, 68.6, 68.1), "mobilenetv2_100": (50, 52.1, 47.9), "efficientnet_b0": (50, 58.0, 55.4)}
    for student, (ipc, ddoq, d4m) in {**others, "swin_tiny_patch4_window7_224": (50, 57.4, 58.1)}.items():
        yield Published(1000, "stable-diffusion", student, ipc, DDOQ, ddoq)
        yield Published(1000, "stable-diffusion", student, ipc, D4M, d4m)
    yield Published(1000, "dit", R18, 10, DDOQ, 53.0)
    yield Published(1000, "dit", R18, 50, DDOQ, 62.7)


PUBLISHED = tuple(_imagenet())


def beside(results: list[dict[str, Any]], recipe: Recipe, index: Index) -> list[dict[str, Any]]:
    """Each number of the paper, and in `ours` the mean of the results' cell that is the same, None where none is.

    The same is: ImageNet-1K, this kind of prior, torchvision's ResNet-18 as teacher, the protocol fkd unchanged, this
    student. What else the recipe changes is not looked at.
    """
    from ddoq_core.imagenet import is_imagenet

    unchanged = type(recipe.train)(architectures=recipe.train.architectures)
    same = recipe.train == unchanged and recipe.teacher.architectures == (TEACHER,)
    same = same and is_imagenet(index.classes)
    found = {(r["ipc"], r["cell"], r["architecture"]): r["top1_mean"] for r in results} if same else {}
    return [
        row._asdict()
        | {"ours": found.get((row.ipc, row.cell, row.student)) if row.prior == recipe.prior.kind else None}
        for row in PUBLISHED
    ]
