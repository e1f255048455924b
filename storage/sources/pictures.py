"""Image files as a viewer shows them: bytes in, an upright 8-bit sRGB picture on white out. Knows no files, no torch.

Every function here may run in many threads at once; Pillow gives up the interpreter's lock while it reads.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # a suffix may lie about the format
PILLOW_MAX_PIXELS = 178_956_970  # where Pillow itself refuses to open a file


class Unreadable(ValueError):
    """Bytes that no viewer could show; the message is the reason."""


def read_picture(data: bytes, max_pixels: int = PILLOW_MAX_PIXELS, least_px: int | None = None) -> Image.Image:
    """The picture in RGB; of an animation the first frame. Raises Unreadable.

    EXIF orientation and an ICC profile are applied (one that does not fit or is broken is ignored), CMYK is converted,
    16 bits are scaled to 8, transparency lies on white. The result carries no metadata that could be applied again.

    least_px  decode a JPEG at a half, a quarter or an eighth of its size (fewer DCT coefficients), the smallest whose
              sides have this many pixels
    """
    with _any_error_is_unreadable():
        image = _open(data, max_pixels)
        if least_px:
            image.draft(None, (least_px, least_px))  # does nothing for other formats
        image.load()
        _turn_upright(image)
        shown = _on_white(image)
    shown.info = {}
    return shown


def check_picture(data: bytes, max_pixels: int = PILLOW_MAX_PIXELS) -> None:
    """Read to the last byte, and drop the picture. Raises Unreadable as `read_picture` does.

    A JPEG is read at an eighth of its size, which looks at all of its data at about half the cost.
    """
    if not data.startswith(b"\xff\xd8"):
        read_picture(data, max_pixels)
        return
    with _any_error_is_unreadable():
        image = _open(data, max_pixels)
        image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
        image.load()


@contextmanager
def _any_error_is_unreadable() -> Iterator[None]:
    """Pillow's plugins raise nearly anything on damaged bytes."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise Unreadable(str(error) or type(error).__name__) from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise Unreadable("no bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise Unreadable("no image of a known format") from None
    if image.width * image.height > max_pixels:
        raise Unreadable(f"{image.width} × {image.height} px is more than {max_pixels} pixels")
    return image


def _turn_upright(image: Image.Image) -> None:
    """In place, so that an error while the rest of broken metadata is rewritten comes after the turn."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # broken metadata does not keep a viewer from showing the picture
        return


def _on_white(image: Image.Image) -> Image.Image:
    """RGB, with the profile applied to the colours and what is transparent laid on white."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        page = Image.new("RGB", image.size, "white")
        page.paste(_to_srgb(rgba.convert("RGB"), profile), mask=rgba.getchannel("A"))
        return page
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return _to_srgb(image, profile)


def _from_16_bits(image: Image.Image) -> Image.Image:
    """8-bit grey by the high byte, as Pillow reads 16-bit colours; its own conversion of grey would clip."""
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    transform = _transform(profile, image.mode) if profile else None
    if transform is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    return transform.apply(image)


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB, None where the profile cannot be read or is of another kind of image."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
