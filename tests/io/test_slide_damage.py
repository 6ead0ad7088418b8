"""Damaged and impossible files: one line with the file's name, never a silent hole."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segmitos.errors import InputError
from segmitos.io.slide import Slide
from tests.factories import slides


def refusal(path: Path) -> str:
    """The message of the error that opening or reading the whole of a file raises."""
    with pytest.raises(InputError) as caught, Slide.open(path) as slide:
        slide.read(0, 0, slide.width, slide.height)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return slides.picture(600, 500)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.png", b"", "empty"),
        ("empty.svs", b"", "empty"),
        ("text.png", b"these are words, not pixels\n" * 20, "not an image"),
        ("short.png", b"\x89PNG\r\n\x1a\n", "damaged PNG"),
        ("short.jpg", b"\xff\xd8\xff\xe0", "damaged JPEG"),
        ("short.tif", b"II*\0", "damaged TIFF"),
        ("none.tif", b"II*\0\x08\0\0\0\0\0\0\0\0\0", "damaged TIFF"),
        ("noise.tif", b"II*\0" + bytes(range(256)) * 9, "damaged TIFF"),
        ("noise.bmp", b"BM" + bytes(range(256)), "damaged BMP"),
        ("noise.mrxs", b"nothing", "OpenSlide"),
        ("noise.dcm", bytes(128) + b"DICM" + bytes(range(200)), "slide"),
    ],
)
def test_no_image_in_it(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert reason in refusal(tmp_path / name)


def test_missing_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.svs")
    (tmp_path / "x.svs").mkdir()
    assert "is a folder" in refusal(tmp_path / "x.svs")


CUT: dict[str, Callable[[Path, np.ndarray], None]] = {
    "a.jpg": slides.save_jpeg,
    "a.png": slides.save_png,
    "a.bmp": slides.save_bmp,
    "a.tif": lambda p, a: slides.save_tiff(p, a, rowsperstrip=20),
    "lzw.tif": lambda p, a: slides.save_tiff(p, a, compression="lzw"),
    "tiled.tif": slides.save_pyramid,
    "a.ome.tif": slides.save_ome,
    "a.svs": slides.save_svs,
}


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.parametrize("name", CUT)
def test_truncated(tmp_path: Path, picture: np.ndarray, name: str, keep: float) -> None:
    CUT[name](tmp_path / name, picture)
    slides.truncate(tmp_path / name, keep)
    assert "truncated" in refusal(tmp_path / name)


def test_jpeg_cut_and_filled_with_zeros(tmp_path: Path, picture: np.ndarray) -> None:
    """As a broken download leaves it: the right length, and gray below."""
    path = tmp_path / "a.jpg"
    slides.save_jpeg(path, picture)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(len(content) - half))
    assert "truncated or damaged JPEG" in refusal(path)
    path.write_bytes(content[:half] + bytes(400) + content[half + 400 :])
    assert "truncated or damaged JPEG" in refusal(path)


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "lzw", "jpeg2000"])
@pytest.mark.parametrize("content", ["zeros", "noise"])
def test_corrupt_tile(tmp_path: Path, picture: np.ndarray, compression: str, content: str) -> None:
    path = tmp_path / "a.tif"
    slides.save_tiff(path, picture, tile=(128, 128), compression=compression)
    noise = np.random.default_rng(1).bytes(1 << 16)
    slides.corrupt_tile(path, 7, None if content == "zeros" else noise)
    assert "damaged tile at pixel (256, 128)" in refusal(path)
    with Slide.open(path) as slide:
        # Elsewhere, and again there: no memory of the failure, no cached hole.
        assert slide.read(0, 0, 200, 100).shape == (100, 200, 3)
        for _ in range(2):
            with pytest.raises(InputError, match="damaged tile"):
                slide.read(300, 200, 10, 10)


@pytest.mark.parametrize("part", ["half", "run"])
def test_jpeg_tile_zeroed_in_part(tmp_path: Path, picture: np.ndarray, part: str) -> None:
    """The decoder itself would fill in gray and say nothing."""
    path = tmp_path / "a.tif"
    slides.save_tiff(path, picture, tile=(256, 256), compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        offset, count = page.dataoffsets[4], page.databytecounts[4]
    content = path.read_bytes()[offset : offset + count]
    rest = b"" if part == "half" else content[count // 2 + 200 :]
    slides.corrupt_tile(path, 4, (content[: count // 2] + bytes(count))[: count - len(rest)] + rest)
    assert "damaged tile at pixel (256, 256)" in refusal(path)


def test_corrupt_tile_of_a_coarse_level(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    slides.save_pyramid(path, picture)
    slides.corrupt_tile(path, 0, page=1)
    with Slide.open(path) as slide:
        assert slide.read(0, 0, 600, 500).shape == (500, 600, 3)
        with pytest.raises(InputError, match=r"damaged tile at pixel \(0, 0\) of level 1"):
            slide.read(0, 0, 300, 250, 0.5)


def test_tile_without_bytes(tmp_path: Path, picture: np.ndarray) -> None:
    """A tile has an offset and a length, or neither."""
    path = tmp_path / "a.tif"
    slides.save_tiff(path, picture[:256, :384], tile=(128, 128))
    with tifffile.TiffFile(path, mode="r+") as tif:
        tag = tif.pages[0].tags["TileOffsets"]
        tag.overwrite([0 if index == 4 else offset for index, offset in enumerate(tag.value)])
    assert "damaged tile at pixel (128, 128) (it is missing" in refusal(path)


def test_corrupt_strip(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    slides.save_tiff(path, picture, rowsperstrip=50, compression="deflate")
    slides.corrupt_tile(path, 3)
    assert "damaged strip at pixel (0, 150)" in refusal(path)


def test_corrupt_tile_of_an_svs(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.svs"
    slides.save_svs(path, picture)
    slides.corrupt_tile(path, 4)
    assert "damaged tile at pixel (256, 256)" in refusal(path)


def test_png_damaged_in_the_middle(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.png"
    slides.save_png(path, picture)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    path.write_bytes(content)
    assert "truncated or damaged PNG" in refusal(path)


def test_too_large_to_be_read_whole(
    tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segmitos.io.slide.backend.MAX_WHOLE_PX", 100_000)
    slides.save_png(tmp_path / "a.png", picture)
    slides.save_tiff(tmp_path / "a.tif", picture)
    for name in "a.png", "a.tif":
        assert "600 x 500 px is more than" in refusal(tmp_path / name)
    slides.save_pyramid(tmp_path / "b.tif", picture)
    assert Slide.open(tmp_path / "b.tif").width == 600


def test_larger_than_pillow_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own limit neither warns nor stops; warnings are errors here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    image = slides.picture(100, 100)
    slides.save_png(tmp_path / "a.png", image)
    with Slide.open(tmp_path / "a.png", mpp=0.25) as slide:
        assert np.array_equal(slide.read(0, 0, 100, 100), image)
        assert slide.read(0, 0, 90, 90, 0.27).shape == (90, 90, 3)


@pytest.mark.parametrize("name", ["a.png", "interlaced.png", "palette.png", "a.jpg"])
def test_fewer_rows_than_the_header_says(tmp_path: Path, picture: np.ndarray, name: str) -> None:
    """The decoders themselves leave what is missing black, or gray, and say nothing."""
    path = tmp_path / name
    if name == "a.jpg":
        slides.save_jpeg(path, picture)
        content = path.read_bytes()
        at = content.index(b"\xff\xc0") + 5
        path.write_bytes(content[:at] + (700).to_bytes(2, "big") + content[at + 2 :])
    else:
        image = Image.fromarray(picture)
        (image.quantize(16) if "palette" in name else image).save(path)
        content = path.read_bytes()
        header = bytearray(content[12:29])
        header[8:12] = (700).to_bytes(4, "big")
        if "interlaced" in name:
            header[8:12] = picture.shape[0].to_bytes(4, "big")
            header[16] = 1
        checked = bytes(header) + zlib.crc32(header).to_bytes(4, "big")
        path.write_bytes(content[:12] + checked + content[33:])
    assert f"truncated or damaged {'JPEG' if name == 'a.jpg' else 'PNG'} file" in refusal(path)


def test_black_last_rows_are_no_damage(tmp_path: Path, picture: np.ndarray) -> None:
    image = picture.copy()
    image[-40:] = 0
    slides.save_png(tmp_path / "a.png", image)
    slides.save_jpeg(tmp_path / "a.jpg", image)
    for name in ("a.png", "a.jpg"):
        with Slide.open(tmp_path / name) as slide:
            assert slide.read(0, 490, 20, 5).max() < 3
