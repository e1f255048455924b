"""The field's evaluation protocols as presets, and what a recipe changes in them. Loads no torch.

A preset is a function of the images per class and the number of classes, as the published scripts choose batch size
and epochs by them. What the artifact of a student is identified by are the resolved numbers, never a preset's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from ddoq_core.train.protocol import Augmentation, Protocol, num_batches
from tasks.recipe.recipe import Recipe, TrainConfig
from tasks.recipe.settings import ProtocolName

CENTER_CROP = 0.875  # Resize(256) and CenterCrop(224) at 224 px, as SRe2L, D4M and RDED evaluate


def fkd(ipc: int, num_classes: int) -> Protocol:
    """SRe2L's training on FKD labels, which D4M and DDOQ take over: 300 epochs of AdamW at batch 1024, T = 20.

    Stated: arXiv 2306.13092 and its train_FKD.py, run with --cos --mix-type cutmix -T 20. Weight decay on tensors of
    more than one dimension only, cosine per epoch to 0, KL without T². Inferred: that DDOQ (arXiv 2501.07681) changes
    none of it but the weights. Own choice: the teacher labels in the training step; `labels: stored` is theirs. Left
    out: that both scripts, to save memory, pass a batch in halves (--gradient-accumulation-steps 2), over each of which
    batch norm is taken.
    """
    return Protocol(
        num_epochs=300,
        batch_size=1024,
        center_crop=CENTER_CROP,
        augmentation=Augmentation(resized_crop=(0.08, 1.0), flip=True, cutmix=True),
    )


def rded(ipc: int, num_classes: int) -> Protocol:
    """RDED's validation: small batches and a cosine stretched to twice the epochs, so that it ends at half the rate.

    Stated: arXiv 2312.03526 and its argument.py: batch 10, 50, 100 at 1, 10, 50 images per class, twice that from 100
    classes on, never more than there are images; crops of half the area and more, T = 20 with CutMix. Its
    validation/main.py passes every batch through the student once more before the step, without gradient, and mixed
    already, as its CutMix is done in place: batch norm moves twice to the same statistics, which is once at a momentum
    of 1 − 0.9². Inferred: its script names no batch between those sizes and above them; here each holds up to the next.
    Left out: the shuffling of a picture's quarters, which belongs to RDED's pictures of four patches, the batch of 100
    at every size that it has for Tiny-ImageNet, and the rates of single students (0.0025 for MobileNet-V2, 0.002 for
    EfficientNet-B0, 0.0001 for Swin: set train.learning_rate).
    """
    batch_size = (10 if ipc < 10 else 50 if ipc < 50 else 100) * (2 if num_classes >= 100 else 1)
    return Protocol(
        num_epochs=300,
        batch_size=min(batch_size, ipc * num_classes),
        schedule="half-cosine",
        batch_norm_momentum=0.19,
        center_crop=CENTER_CROP,
        augmentation=Augmentation(resized_crop=(0.5, 1.0), flip=True, cutmix=True),
    )


def hard(ipc: int, num_classes: int) -> Protocol:
    """Training on class labels as in the ImageNette and ImageWoof tables, with nets of instance norm.

    Stated: arXiv 2311.15529 (Minimax), whose train.py is IDC's (arXiv 2205.14959): cross entropy, SGD 0.01 with
    momentum 0.9 and weight decay 5e-4 on all parameters, batch 64, the rate times 0.2 after 2/3 and 5/6 of 3000, 2000,
    1500, 1000, 500 or 300 epochs at up to 1, 10, 50, 200, 500 or more images per class, with 100 classes two thirds of
    that down to hundreds; CutMix in every batch, crops of half the area and more. Left out: its colour jitter and PCA
    lighting, and its other numbers above 100 classes, which it marks as not tuned. Held-out images are brought to size
    by their short side and cropped to the centre.
    """
    bounds = {1: 3000, 10: 2000, 50: 1500, 200: 1000, 500: 500}
    num_epochs = next((epochs for most, epochs in bounds.items() if ipc <= most), 300)
    return Protocol(
        labels="hard",
        num_epochs=num_epochs * 2 // 3 // 100 * 100 if num_classes == 100 else num_epochs,
        batch_size=64,
        optimizer="sgd",
        learning_rate=0.01,
        weight_decay=5e-4,
        schedule="steps",
        center_crop=1.0,
        augmentation=Augmentation(resized_crop=(0.5, 1.0), flip=True, cutmix=True),
    )


def quick(ipc: int, num_classes: int) -> Protocol:
    """Seconds per student on a CPU, for pictures of 8 to 32 px. No source: our own, as the recipe digits uses it."""
    return Protocol(num_epochs=200, batch_size=128, learning_rate=2e-3, augmentation=Augmentation(shift_px=2))


def rd3(ipc: int, num_classes: int) -> Protocol:
    """The one protocol under which RD3 judges methods again: 400 epochs at batch 50, Adam 1e-3, one teacher.

    Stated: arXiv 2509.19743: epochs, batch, Adam and its rate, a smoothed cosine, soft labels of one ResNet-18.
    Inferred: "smoothed" is RDED's stretched cosine, as EDC (arXiv 2404.13733) calls it; Adam has no weight decay, as
    AdamW at 0; T = 20, CutMix and crops of half the area and more as in RDED. Left out: its loss with class labels
    beside the teacher's. Its script was not to be had.
    """
    return Protocol(
        num_epochs=400,
        batch_size=min(50, ipc * num_classes),
        weight_decay=0.0,
        schedule="half-cosine",
        center_crop=CENTER_CROP,
        augmentation=Augmentation(resized_crop=(0.5, 1.0), flip=True, cutmix=True),
    )


PRESETS: dict[ProtocolName, Callable[[int, int], Protocol]] = {
    "fkd": fkd, "rded": rded, "hard": hard, "rd3": rd3, "quick": quick,
}  # fmt: skip


def protocol_of(recipe: Recipe, method: str, num_classes: int) -> Protocol:
    """How a method's students are trained.

    Those of mosaics take as many steps as if a mosaic were one picture, in whole epochs: where batches are full, one
    for each side² of a plain picture's, as IDC has it with --same_compute (arXiv 2205.14959).
    """
    own = recipe.settings_of(method)
    protocol = resolve(recipe.train, recipe.ipc, num_classes, own.in_protocol)
    if own.decode.labels == "own":
        protocol = replace(protocol, labels="own")
    num_pictures = recipe.num_pictures(method) * num_classes
    in_mosaics = num_batches(num_pictures // own.decode.mosaic**2, protocol.batch_size)
    of_tiles = num_batches(num_pictures, protocol.batch_size)
    return replace(protocol, num_epochs=-(-protocol.num_epochs * in_mosaics // of_tiles))


def resolve(config: TrainConfig, ipc: int, num_classes: int, of_method: Mapping[str, Any] | None = None) -> Protocol:
    """The preset's values, in their place all that the recipe sets, and before that what a method sets of its own."""
    own: dict[str, Any] = {field.name: getattr(config, field.name) for field in fields(Protocol)}
    own |= of_method or {}
    preset = PRESETS[config.protocol](ipc, num_classes)
    return replace(preset, **{name: value for name, value in own.items() if value is not None})


def augmentation_identity(augmentation: Augmentation) -> dict[str, Any]:
    """What of an augmentation matters. Crops once were cut to the picture where now they are drawn again."""
    return {**asdict(augmentation), **({"crops": "until they fit"} if augmentation.resized_crop else {})}
