"""Distilled sets as tensors: one file of torch's or numpy's, or `images.pt` with `labels.pt` beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.names import STATED
from tasks.sets.given import (
    LABELS,
    LOGITS,
    WEIGHTS,
    GivenSet,
    SetError,
    files_below,
    labels_from,
    line_of,
    logits_from,
    named_labels,
    names_of,
    stated_in,
    weights_from,
)

SUFFIXES = (".pt", ".pth", ".npz")
IMAGES = ("images", "image", "data", "x")
KEYS = {"images": IMAGES, "labels": LABELS, "weights": WEIGHTS, "logits": LOGITS, "classes": ("classes", "class_names")}
BESIDE = {"labels": "labels", "weights": "weights", "logits": "logits"}  # in the place of "images" in a file's name
TOGETHER = 256  # pictures looked through at once
MOST_OUTSIDE = 0.01  # share of numbers that may lie outside what is stated, and are clipped
ALIKE, LEAST_PX = 0.45, 16  # CIFAR-10's neighbouring pixels correlate by 0.91, whitened by ZCA by 0.27 to 0.38


@dataclass(frozen=True)
class Scale:
    """What floats mean: a range (lowest, highest), or mean and std of a normalisation, one or one a channel."""

    value_range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def to_unit(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Numbers (..., channels) as they are stated → 0 to 1."""
        x = np.asarray(x, np.float64)
        if self.value_range:
            low, high = self.value_range
            return (x - low) / (high - low)
        assert self.mean and self.std
        return x * np.array(self.std) + np.array(self.mean)


def is_tensors(path: Path) -> bool:
    """Whether a path is a file of tensors, or a folder that holds some."""
    return path.suffix in SUFFIXES if path.is_file() else bool(_files_in(path))


def open_tensors(path: Path, scale: Scale) -> GivenSet:
    """A set of tensors. Raises SetError for one that is not whole, or whose pictures could not be shown."""
    file = path if path.is_file() else _images_file(path)
    stated = stated_in(file.parent)
    fields, files = _fields(file)
    for key in ("images", "labels"):
        if key not in fields:
            raise SetError(f"{file} holds no {key}: save a dict of images and labels, or {key}.pt beside it")
    images = _in_rows(fields["images"], file)
    values, named = _numpy(fields["labels"], file), None
    if values.dtype.kind == "U":
        named, labels = named_labels(values.tolist())
        logits = None
    else:
        labels, logits = labels_from(values, file)
    if "labels" in stated:
        labels = labels_from(_numpy(stated["labels"], file), file.parent / STATED)[0]
    if "logits" in fields:
        logits = logits_from(_numpy(fields["logits"], file), file)
    if not len(images) == len(labels) == len(labels if logits is None else logits):
        raise SetError(f"{file}: {len(images)} pictures and {len(labels)} labels: give one for each")
    classes = named or names_of(stated.get("classes", fields.get("classes")), file)
    scale = _stated_scale(scale, stated, file)
    weights = weights_from(_numpy(fields["weights"], file), len(images), file) if "weights" in fields else None
    is_float = images.dtype != np.uint8
    return GivenSet(
        path=path,
        files=files_below(file.parent, [*files, *([file.parent / STATED] if stated else [])]),
        classes=classes,
        labels=labels,
        picture=lambda row: Image.fromarray(_shown(images[row], scale)),
        weights=weights,
        logits=logits,
        check=partial(_check_floats, images, scale, file) if is_float else lambda: None,
    )


def _files_in(folder: Path) -> list[Path]:
    return sorted(at for at in folder.iterdir() if at.suffix in SUFFIXES) if folder.is_dir() else []


def _images_file(folder: Path) -> Path:
    """The file that the pictures of a folder are in."""
    files = _files_in(folder)
    named = [file for file in files if file.stem in IMAGES] or [file for file in files if _is_of_images(file)]
    found = files if len(files) == 1 else named
    if len(found) != 1:
        names = ", ".join(file.name for file in files[:5])
        raise SetError(f"{folder} holds several files of tensors ({names}): give the one with the pictures")
    return found[0]


def _is_of_images(file: Path) -> bool:
    return bool(re.match(r"images?(?![a-z])", file.stem))


def _fields(file: Path) -> tuple[dict[str, Any], list[Path]]:
    """What a file of tensors holds, under our names, and the files it was read from."""
    held = _load(file)
    if isinstance(held, Mapping):
        found = {ours: held[key] for ours, keys in KEYS.items() for key in reversed(keys) if key in held}
        if found:
            return found, [file]
        raise SetError(f"{file} holds {', '.join(map(repr, list(held)[:5]))}: name what are pictures 'images'")
    if isinstance(held, list | tuple) and 2 <= len(held) <= 3:
        return dict(zip(("images", "labels", "weights"), held, strict=False)), [file]
    fields, files = {"images": held}, [file]
    for ours, word in BESIDE.items():
        beside = file.with_name(re.sub(r"images?", word, file.name, count=1))
        if beside != file and beside.exists():
            fields[ours] = _load(beside)
            files.append(beside)
    return fields, files


def _load(file: Path) -> Any:
    """What a file holds, without running anything of it: of torch's only tensors and plain containers, of numpy's no
    objects."""
    if file.suffix == ".npz":
        try:
            with np.load(file, allow_pickle=False) as held:
                return {key: held[key] for key in held.files}
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise SetError(f"{file} cannot be read ({line_of(error)}): save plain arrays with numpy.savez") from error
    import pickle

    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise SetError(
            f"{file} is a pickle of more than tensors, which could run code and is not opened: save tensors alone, "
            'torch.save({"images": x, "labels": y}, ...)'
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as mapped:
        try:  # of an older kind that cannot be mapped
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise SetError(f"{file} cannot be read ({line_of(mapped)}): save it with torch.save") from error


def _numpy(value: Any, file: Path) -> NDArray[Any]:
    """An array, of a tensor the same memory where numpy has the type."""
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise SetError(f"{file}: {line_of(error)}: give one tensor, not a list of several shapes") from error
    if found.dtype.kind not in "iufU":
        raise SetError(f"{file} holds a {type(value).__name__} where numbers are expected: save tensors")
    return found


def _in_rows(value: Any, file: Path) -> NDArray[Any]:
    """Pictures (N, H, W, channels) of 1 or 3 channels, from either layout. Raises SetError for others."""
    images = _numpy(value, file)
    if images.ndim == 3:
        images = images[..., None]  # grey
    if images.ndim == 4 and images.shape[1] in (1, 3) and (file.suffix != ".npz" or images.shape[3] not in (1, 3)):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise SetError(f"{file}: its pictures are of shape {images.shape}: give (N, 3, H, W) or (N, H, W, 3)")
    if images.dtype.kind in "iu" and images.dtype != np.uint8:
        if images.min() < 0 or images.max() > 255:
            raise SetError(f"{file}: whole numbers from {images.min()} to {images.max()} are no pixels: give 0 to 255")
        images = images.astype(np.uint8)
    if images.dtype.kind not in "uf":
        raise SetError(f"{file}: its pictures are of type {images.dtype}: give uint8, or floats")
    return images


def _stated_scale(given: Scale, stated: Mapping[str, Any], file: Path) -> Scale:
    """What the settings say floats mean, else what set.json says. Raises SetError for what means nothing."""
    if given != Scale():
        return given
    try:
        parts = {key: tuple(float(x) for x in stated[key]) for key in ("value_range", "mean", "std") if key in stated}
        scale = Scale(**parts)  # type: ignore[arg-type]
        if scale.value_range and not (len(scale.value_range) == 2 and scale.value_range[0] < scale.value_range[1]):
            raise ValueError(f"value_range {scale.value_range}")
        if (scale.mean is None) != (scale.std is None) or (scale.value_range and scale.mean):
            raise ValueError("mean and std go together, and not with value_range")
    except (TypeError, ValueError) as error:
        raise SetError(
            f"{file.parent / STATED}: {line_of(error)}: state mean and std, or value_range [low, high]"
        ) from error
    return scale


def _check_floats(images: NDArray[Any], scale: Scale, file: Path) -> None:
    """Raise SetError for floats that nobody explains, that are not finite, or are no pictures as explained."""
    parts = [images[k : k + TOGETHER] for k in range(0, len(images), TOGETHER)]
    if not all(np.isfinite(part).all() for part in parts):
        raise SetError(f"{file}: its pictures hold NaN or infinity: the training that made them went wrong")
    low, high = min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
    if scale == Scale():
        raise SetError(
            f"{file}: its pictures are floats from {low:.3g} to {high:.3g}, and nothing says what they mean: state "
            f"value_range [0, 1], or the mean and std that they were normalised by, in the settings or in {STATED}"
        )
    outside = float(np.mean([_outside(scale.to_unit(part)) for part in parts]))
    alike = float(np.mean([_likeness(part) for part in parts]))
    if scale.mean and alike < ALIKE and images.shape[1] >= LEAST_PX:  # whitened numbers look like normalised ones
        raise SetError(
            f"{file}: neighbouring pixels correlate by {alike:.2f}, those of photographs by 0.9: whitened by ZCA? "
            "undo it with the matrix that it was done by, or save the pictures as they are shown"
        )
    if outside > MOST_OUTSIDE:
        raise SetError(
            f"{file}: {outside:.0%} of the numbers, from {low:.3g} to {high:.3g}, lie outside what is stated: state "
            "another range, or mean and std; clip them yourself; or undo the whitening, if they are whitened by ZCA"
        )


def _outside(x: NDArray[np.float64]) -> float:
    return float(((x < -1 / 255) | (x > 1 + 1 / 255)).mean())


def _likeness(images: NDArray[Any]) -> float:
    """The correlation of pixels (N, H, W, channels) with their right neighbours, within pictures."""
    x = np.asarray(images, np.float64)
    x = x - x.mean((1, 2), keepdims=True)
    left, right = x[:, :, :-1], x[:, :, 1:]
    scale = np.sqrt((left**2).sum() * (right**2).sum())
    return float((left * right).sum() / scale) if scale else 1.0


def _shown(image: NDArray[Any], scale: Scale) -> NDArray[np.uint8]:
    """A picture (H, W, channels) as (H, W, 3) uint8."""
    if image.dtype != np.uint8:
        image = np.clip(np.round(255 * scale.to_unit(image)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
