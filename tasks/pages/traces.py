"""The way of the pictures that a report shows: the real image nearest to a centroid, that after the autoencoder, the
centroid decoded without the prior, and which other training images are near."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.artifact import Artifact
from tasks.inputs.stores import index_of, latents_of, prototypes_of, some_classes

NUM_NEIGHBOURS = 3
THUMBNAIL_PX = 64  # at most
MOST_TRACED = 600  # prototypes on a page, shared equally by its sets of prototypes and their classes
Pictures = NDArray[np.uint8]
Read = Callable[[NDArray[np.int64]], Pictures]  # images (n, S, S, 3) of rows (n,) of the index
Decode = Callable[[NDArray[np.float32]], Pictures]  # pictures (n, S, S, 3) of latents (n, C, H, W), without the prior


def traces(decoded: Mapping[str, Artifact], read: Read, decode: Decode) -> list[dict[str, Any]]:
    """Of each set of prototypes, the methods (decoded: name → its pictures) that share it and its classes' prototypes,
    the first MOST_TRACED of all, each with the pictures of its way. None of methods without prototypes.

    key      by which the page leads from a picture to its prototype
    num_all  how many prototypes a class has, where fewer are shown; else None
    """
    methods: dict[str, list[str]] = {}
    clusters: dict[str, Artifact] = {}
    for method, pictures in decoded.items():
        if "cluster" in pictures.parents:
            clusters[pictures.parents["cluster"].digest] = pictures.parents["cluster"]
            methods.setdefault(pictures.parents["cluster"].digest, []).append(method)
    lanes = []
    for digest, cluster in clusters.items():
        names = some_classes(index_of(cluster))
        num_all = prototypes_of(cluster).shape_of(names[0], "medoids")[0]
        num = min(num_all, max(1, MOST_TRACED // (len(clusters) * len(names))))
        classes = [{"name": name, "prototypes": list(_of_class(cluster, name, num, read, decode))} for name in names]
        told = {"num": num, "num_all": num_all if num < num_all else None}
        lanes.append({"key": digest, "methods": methods[digest], "classes": classes, **told})
    return lanes


def _of_class(cluster: Artifact, name: str, num: int, read: Read, decode: Decode) -> Iterator[dict[str, Any]]:
    """The first prototypes of a class: thumbnails of the way and of the neighbours, and how far these are from the
    centroid in latent space, the medoid's own distance first."""
    latents, prototypes = latents_of(cluster.parents["encode"]), prototypes_of(cluster)
    medoids, centroids = (prototypes.read_array(name, key)[:num] for key in ("medoids", "centroids"))
    near, far = _neighbours(latents.read_blocks(name), centroids, medoids)
    z = latents.read_some(name, medoids).astype(np.float32)  # (K, C, H, W)
    apart = np.sqrt(np.square(z - centroids).reshape(len(z), -1).sum(1))
    rows = latents.read_rows(name)[np.column_stack([medoids, near])]  # (K, 1 + NUM_NEIGHBOURS)
    pictures = read(rows.ravel())
    real = pictures.reshape(*rows.shape, *pictures.shape[1:])
    again, centre = np.split(decode(np.concatenate([z, centroids])), 2)
    for k in range(len(centroids)):
        yield {
            "medoid": _thumbnail(real[k, 0]),
            "again": _thumbnail(again[k]),
            "centre": _thumbnail(centre[k]),
            "apart": f"{apart[k]:.2f}",
            "neighbours": [
                {"picture": _thumbnail(picture), "far": f"{distance:.2f}"}
                for picture, distance in zip(real[k, 1:], far[k], strict=True)
            ],
        }


def _neighbours(
    blocks: Iterator[NDArray[np.float16]], centroids: NDArray[Any], medoids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Images of the class nearest to each centroid, but its medoid, and their distances, (K, NUM_NEIGHBOURS) each, or
    fewer of a small class."""
    from ddoq_core.measure.samples import nearest_in_blocks

    flat = (block.reshape(len(block), -1) for block in blocks)
    found, far = nearest_in_blocks(centroids.reshape(len(centroids), -1), flat, NUM_NEIGHBOURS + 1)
    order = np.argsort(found == medoids[:, None], axis=1, kind="stable")[:, : max(0, found.shape[1] - 1)]
    return np.take_along_axis(found, order, 1), np.take_along_axis(far, order, 1)


def _thumbnail(picture: Pictures) -> str:
    """A picture (S, S, 3), small, as base64 of WebP."""
    image, buffer = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    image.save(buffer, "WEBP", quality=90)
    return base64.b64encode(buffer.getvalue()).decode()
