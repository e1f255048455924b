"""Real latents for the benchmarks: images of the shared folder through the pretrained autoencoder, cached.

Where the shared folder is missing, scikit-learn's digits stand in, and the name of the set says so.
"""

from __future__ import annotations

import io
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.places import REPOSITORY, SHARED

CACHE = REPOSITORY / ".cache" / "latents"
BATCH = 100


@dataclass(frozen=True)
class Source:
    """Tars of real images `<split>/<class>/<file>`; how many of a class are encoded, at which size."""

    name: str
    tars: str
    size_px: int
    per_class: int


CIFAR10 = Source("cifar10", "data/cifar10/cifar10-train.tar.gz", 32, 1300)
IMAGENETTE = Source("imagenette", "data/imagenette-224/imagenette-224-*.tar.gz", 64, 300)


@dataclass(frozen=True)
class Latents:
    """Latents of some classes, each (n, d) float32, and words on what they are."""

    name: str
    classes: dict[str, NDArray[np.float32]]


def real_latents(imagenette_per_class: int = IMAGENETTE.per_class) -> list[Latents]:
    """All sets of real latents to be had here; only the digits' pixels without the shared folder."""
    if not (SHARED / "weights/taef2").is_dir():
        return [digits()]
    return [encoded(CIFAR10), encoded(replace(IMAGENETTE, per_class=imagenette_per_class))]


def digits() -> Latents:
    """The digits' pixels, d = 64: about 180 images of each class."""
    from sklearn.datasets import load_digits

    data = load_digits()
    classes = {str(c): data.data[data.target == c].astype(np.float32) for c in range(10)}
    return Latents("digits' pixels, d = 64 (no shared folder found)", classes)


def encoded(source: Source) -> Latents:
    """Latents of the first images of each class in the tars, encoded once, then read from the cache."""
    path = CACHE / f"{source.name}-{source.size_px}px-{source.per_class}.npz"
    if not path.exists():
        images = _images(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        stored: dict[str, Any] = {name: _encode(pixels) for name, pixels in sorted(images.items())}
        np.savez(partial, **stored)
        partial.rename(path)
    with np.load(path) as cached:
        classes = {name: cached[name].astype(np.float32) for name in cached.files}
    counts, d = {len(z) for z in classes.values()}, next(iter(classes.values())).shape[1]
    n = "–".join(str(c) for c in sorted({min(counts), max(counts)}))
    words = f"{source.name}, {len(classes)} classes × {n} images at {source.size_px} px, TAEF2, d = {d}"
    return Latents(words, classes)


def low_rank(n: int, d: int, *, rank: int = 256, seed: int = 0) -> NDArray[np.float32]:
    """Random latents (n, d): `rank` directions with scales falling as 1/√j, and white noise of 0.3."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, rank + 1) ** -0.5
    scale /= np.sqrt(np.square(scale).sum())
    z = rng.standard_normal((n, rank), np.float32) * scale.astype(np.float32)
    noise = np.float32(0.3) * rng.standard_normal((n, d), np.float32)
    return z @ rng.standard_normal((rank, d), np.float32) + noise


def _images(source: Source) -> dict[str, NDArray[np.uint8]]:
    """Pixels (n, 3, size, size) uint8 of each class."""
    from PIL import Image

    found: dict[str, list[NDArray[np.uint8]]] = defaultdict(list)
    for path, data in members(source):
        name = path.parts[-2]
        if len(found[name]) < source.per_class:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            if image.size != (source.size_px, source.size_px):
                image = image.resize((source.size_px, source.size_px), Image.Resampling.LANCZOS)
            found[name].append(np.asarray(image).transpose(2, 0, 1))
    return {name: np.stack(images) for name, images in found.items()}


def members(source: Source) -> Iterator[tuple[Path, bytes]]:
    """Path `<split>/<class>/<file>` and bytes of every image, in the order of the tars."""
    for path in sorted(SHARED.glob(source.tars)):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and (file := tar.extractfile(member)):
                    yield Path(member.name), file.read()


def _encode(pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Latents (n, d) float16, as a latent store would hold them."""
    import torch

    from ddoq_core.encode.taef2 import TAEF2

    model = TAEF2.load(SHARED / "weights/taef2")
    with torch.inference_mode():
        parts = [
            model.encode(torch.from_numpy(pixels[i : i + BATCH]).float() / 255).flatten(1).half().numpy()
            for i in range(0, len(pixels), BATCH)
        ]
    return np.concatenate(parts)
