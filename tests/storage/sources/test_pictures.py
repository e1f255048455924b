"""Files of every kind, written here, look as a viewer shows them: known colours at known places."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from storage.sources.pictures import Unreadable, check_picture, read_picture

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def png(colour_type: int, bits: int, rows: list[bytes], width: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file from its raw rows, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def row_of(data: bytes) -> list[tuple[int, ...]]:
    """The first row of the picture, after a check that it is plain RGB."""
    check_picture(data)
    picture = read_picture(data)
    assert picture.mode == "RGB" and picture.info == {}
    return [tuple(int(v) for v in pixel) for pixel in np.asarray(picture)[0]]


def test_colours_and_grey_stay_as_they_are() -> None:
    assert row_of(encoded(Image.fromarray(np.array([[RED, GREEN]], np.uint8)))) == [RED, GREEN]
    assert row_of(encoded(Image.fromarray(np.array([[0, 77]], np.uint8)))) == [(0, 0, 0), (77, 77, 77)]
    assert row_of(encoded(Image.new("RGB", (9, 9), BLUE), "WEBP", lossless=True))[0] == BLUE
    assert row_of(encoded(Image.new("RGB", (9, 9), BLUE), "BMP"))[0] == BLUE


def test_one_bit_is_black_and_white() -> None:
    assert row_of(encoded(Image.fromarray(np.array([[True, False]])))) == [WHITE, (0, 0, 0)]


def test_sixteen_bit_grey_is_scaled() -> None:
    data = encoded(Image.fromarray(np.array([[0, 128 * 257, 65535, 300]], np.uint16)))
    assert row_of(data) == [(0, 0, 0), (128, 128, 128), WHITE, (1, 1, 1)]


def test_sixteen_bit_colours_are_scaled() -> None:
    data = png(2, 16, [struct.pack(">6H", 65535, 128 * 257, 0, 300, 40_000, 65535)], 2)
    assert row_of(data) == [(255, 128, 0), (1, 156, 255)]


def test_what_is_transparent_lies_on_white() -> None:
    pixels = np.array([[(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)]], np.uint8)
    assert row_of(encoded(Image.fromarray(pixels))) == [RED, WHITE, (127, 127, 127)]
    grey = Image.fromarray(np.array([[(0, 255), (0, 0), (0, 128)]], np.uint8), "LA")
    assert row_of(encoded(grey)) == [(0, 0, 0), WHITE, (127, 127, 127)]
    assert row_of(png(4, 16, [struct.pack(">4H", 0, 65535, 0, 0)], 2)) == [(0, 0, 0), WHITE]


def test_a_palette_gives_its_colours_and_its_transparent_entry_white() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([*RED, *GREEN, *BLUE])
    assert row_of(encoded(image)) == [RED, GREEN, BLUE]
    assert row_of(encoded(image, transparency=1)) == [RED, WHITE, BLUE]
    assert row_of(encoded(image, transparency=b"\xff\x00\x80")) == [RED, WHITE, (127, 127, 255)]
    assert row_of(encoded(image, "GIF", transparency=1)) == [RED, WHITE, BLUE]


def test_a_transparent_colour_without_an_alpha_channel_is_white() -> None:
    pixels = bytes([*RED, *GREEN])
    assert row_of(png(2, 8, [pixels], 2, (b"tRNS", struct.pack(">3H", *RED)))) == [WHITE, GREEN]


def test_cmyk_is_converted_with_and_without_adobes_marker() -> None:
    """Adobe stores CMYK inverted, and viewers take all CMYK for such."""
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    start = data.index(b"\xff\xee")
    without = data[:start] + data[start + 2 + struct.unpack(">H", data[start + 2 : start + 4])[0] :]
    assert b"Adobe" in data and b"Adobe" not in without
    for kind in (data, without):
        np.testing.assert_allclose(row_of(kind)[0], RED, atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_brought_upright(orientation: int) -> None:
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8], upright[8:, 16:] = RED, BLUE  # top left and bottom right
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    turned = Image.fromarray(np.ascontiguousarray(stored))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "JPEG"):
        picture = read_picture(
            encoded(turned, kind, exif=exif, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
        )
        np.testing.assert_allclose(np.asarray(picture).astype(int), upright.astype(int), atol=8)
        assert picture.getexif().get(0x0112, 1) == 1, "it would be turned again"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored() -> None:
    assert row_of(encoded(Image.new("RGB", (8, 8), RED), exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage"))[0] == RED


@pytest.mark.filterwarnings("ignore:Tag data larger")
def test_an_orientation_among_broken_exif_is_applied_once() -> None:
    """Maker notes of cameras often point behind the end of the data."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x010F, 2, 99, 9999)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + bytes(4)
    picture = read_picture(encoded(Image.fromarray(np.array([[RED, BLUE]], np.uint8)), exif=exif))
    assert [tuple(pixel) for pixel in np.asarray(picture)[:, 0].tolist()] == [RED, BLUE]
    assert picture.info == {} and 0x0112 not in picture.getexif()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_pictures_of_every_mode_are_turned(mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("I;16", (5, 3)) if mode == "I;16" else Image.new("RGB", (5, 3), WHITE).convert(mode)
    picture = read_picture(encoded(image, exif=exif))
    assert picture.size == (3, 5) and picture.mode == "RGB" and picture.info == {}


def swapped_profile() -> bytes:
    """sRGB with the curves kept and the primaries of red and green exchanged: red is stored as green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {
        bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12)
    }
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile)


def test_a_profile_is_applied_to_the_colours_and_not_to_the_alpha() -> None:
    profile = swapped_profile()
    for mode, colour in (("RGB", RED), ("RGBA", (*RED, 255))):
        data = encoded(Image.new(mode, (4, 4), colour), icc_profile=profile)
        np.testing.assert_allclose(row_of(data)[0], GREEN, atol=2)
    half = encoded(Image.new("RGBA", (4, 4), (*RED, 128)), icc_profile=profile)
    np.testing.assert_allclose(row_of(half)[0], (127, 255, 127), atol=2)


@pytest.mark.parametrize("profile", ["lab", "broken"])
def test_a_profile_that_is_broken_or_does_not_fit_is_ignored(profile: str) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    data = encoded(Image.new("RGB", (4, 4), RED), icc_profile=lab if profile == "lab" else lab[:50])
    assert row_of(data)[0] == RED


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_shown(kind: str) -> None:
    first, *others = (Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE))
    settings = {"lossless": True} if kind == "WEBP" else {}
    assert row_of(encoded(first, kind, save_all=True, append_images=others, **settings))[0] == RED


@pytest.mark.parametrize(
    "data", [png(2, 8, [], 0), png(2, 8, [], 4), png(2, 8, [b""], 0), b"GIF89a" + bytes(7) + b",\0\0\0\0\0\0\0\0\0;"]
)
def test_a_picture_without_pixels_is_refused(data: bytes) -> None:
    for look in (check_picture, read_picture):
        with pytest.raises(Unreadable, match=r"\w"):
            look(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_is_cut_off_is_refused(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for settings in ({}, {"progressive": True}) if kind == "JPEG" else ({},):
        data = encoded(Image.fromarray(pixels), kind, **settings)
        check_picture(data)
        for share in (0.3, 0.6, 0.95):
            for look in (check_picture, read_picture):
                with pytest.raises(Unreadable):
                    look(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", bytes(range(256)), b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    for look in (check_picture, read_picture):
        with pytest.raises(Unreadable, match=r"\w"):
            look(data)


def test_the_limit_is_looked_at_before_reading() -> None:
    data = encoded(Image.new("1", (3000, 2000)))
    assert read_picture(data, 6_000_000).size == (3000, 2000)
    for look in (check_picture, read_picture):
        with pytest.raises(Unreadable, match="3000 × 2000 px is more than 5999999 pixels"):
            look(data, 5_999_999)
        with pytest.raises(Unreadable, match="exceeds limit"):
            look(png(0, 8, [b""], 2**31 - 1))


@pytest.mark.parametrize(
    ("least_px", "size"), [(None, (301, 224)), (151, (301, 224)), (112, (151, 112)), (9, (38, 28))]
)
def test_a_jpeg_is_decoded_no_larger_than_it_is_needed(least_px: int | None, size: tuple[int, int]) -> None:
    x, y = np.meshgrid(np.linspace(0, 255, 301), np.linspace(0, 255, 224))
    image = Image.fromarray(np.stack([x, y, 255 - x], 2).astype(np.uint8))
    assert read_picture(encoded(image, "PNG"), least_px=least_px).size == image.size
    found = read_picture(encoded(image, "JPEG", quality=95), least_px=least_px)
    assert found.size == size
    assert np.abs(np.asarray(found, int) - np.asarray(image.resize(size), int)).mean() < 2


def test_a_jpeg_is_reduced_before_it_is_turned() -> None:
    turn = Image.Exif()
    turn[0x0112] = 6
    data = encoded(Image.new("RGB", (64, 32), RED), "JPEG", exif=turn)
    assert read_picture(data).size == (32, 64) and read_picture(data, least_px=16).size == (16, 32)


def test_many_threads_see_the_same_picture() -> None:
    """Profiles included, whose transforms the threads share."""
    rng = np.random.default_rng(0)
    pixels = [Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)) for _ in range(8)]
    files = [encoded(image, icc_profile=swapped_profile()) for image in pixels]
    alone = [read_picture(data).tobytes() for data in files]
    start = threading.Barrier(8)

    def look(data: bytes) -> bytes:
        start.wait(timeout=30)
        return [read_picture(data).tobytes() for _ in range(20)][-1]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, files)) == alone
