"""What the quantiser accepts: points, weights of points, and options, each refused in one sentence that names the
value and the remedy."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from ddoq_core.cluster.partition import Weights

OF_TENSOR = "tensor.detach().float().cpu().numpy()"
Method = Literal["exact", "stream", "stream-d4m", "clvq", "balanced", "random", "divisive", "centre-margin"]
METHODS: tuple[Method, ...] = get_args(Method)
WITH_STARTS: tuple[Method, ...] = ("exact", "balanced", "divisive", "centre-margin")
WHOLE: tuple[Method, ...] = ("balanced", "divisive", "centre-margin")  # which look at all points of a class at once
TAKEN_BY: dict[str, tuple[Method, ...]] = {
    "num_starts": WITH_STARTS,
    "batch_size": ("stream", "stream-d4m"),
    "step": ("clvq",),
    # Not clvq, whose steps are draws from the data, nor balanced: whole points of unequal weight fill no equal cells.
    # Nor the peers', as published.
    "sample_weight": ("exact", "stream", "stream-d4m", "random"),
}


def check_points(z: ArrayLike, num_points: int) -> NDArray[np.floating]:
    """The points as a contiguous (n, d) array, float64 if they come in more than float32, or a ValueError."""
    check_whole("num_points", num_points)
    points = real_array("points", z)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(f"points must be an (n, d) array, got shape {points.shape}; flatten latents to (n, C·H·W)")
    n = len(points)
    if not 1 <= num_points <= n:
        raise ValueError(f"{num_points} points asked for, but the class has {n}; ask for 1 to {n}")
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points)).any(axis=1).sum())
        raise ValueError(f"{bad} of {n} points are not finite; leave them out, or encode in float32")
    return points


def real_array(name: str, values: ArrayLike) -> NDArray[np.floating]:
    """The values as float32, or as float64 where their type holds more than float32 does."""
    if issparse(values):
        raise ValueError(f"{name} are a sparse {type(values).__name__}; pass them dense, as values.toarray()")
    try:
        array = np.asarray(values)
    except (
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:  # a ragged list; a tensor with a gradient, on a GPU, bfloat16
        raise ValueError(f"{name} do not convert to an array ({error}); of a tensor, pass {OF_TENSOR}") from None
    if array.dtype.kind == "c":
        raise ValueError(f"{name} are {array.dtype}; pass real numbers, e.g. real and imaginary parts side by side")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} have dtype {array.dtype}; pass numbers, e.g. as values.astype('float32')")
    single = np.can_cast(array.dtype, np.float32)
    return np.ascontiguousarray(array, dtype=np.float32 if single else np.float64)


def check_weights(sample_weight: ArrayLike, num_samples: int, num_points: int) -> Weights:
    """Weights of points (n,) float64 ≥ 0, of which K are positive, or a ValueError."""
    w = real_array("sample_weight", sample_weight).astype(np.float64)
    if w.shape != (num_samples,):
        raise ValueError(f"sample_weight must have shape ({num_samples},), one number for each point, got {w.shape}")
    if not (np.isfinite(w).all() and (w >= 0).all()):
        raise ValueError(f"sample_weight must be finite numbers ≥ 0, got {w[~(np.isfinite(w) & (w >= 0))][0]}")
    positive = int((w > 0).sum())
    if positive < num_points:
        raise ValueError(f"{num_points} points asked for, but {positive} have a sample_weight above zero")
    return w


def check_options(method: str, num_points: int, **options: Any) -> None:
    """Raise ValueError for an unknown method, an option that the method does not take, or one out of bounds."""
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)}")
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if method not in TAKEN_BY[name]:
            takers = " or ".join(TAKEN_BY[name])
            raise ValueError(f"method {method} takes no {name}; leave it out, or take method {takers}")
    check_whole("num_starts", given.get("num_starts", 1), least=1)
    size, step = given.get("batch_size", num_points), given.get("step", (1, 0))
    check_whole("batch_size", size)
    if size < num_points:
        raise ValueError(f"batch_size {size} is smaller than the {num_points} points asked for")
    if not (len(step) == 2 and 0 < step[0] < np.inf and 0 <= step[1] < np.inf):
        raise ValueError(f"step (a, b) needs a > 0 and b ≥ 0, got {step}")


def check_whole(name: str, value: Any, least: int | None = None) -> None:
    """Raise ValueError for what is not a whole number, as 5.0, "5" and True are not, or is too small."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be a whole number, got {value!r}; pass an int")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
