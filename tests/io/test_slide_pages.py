"""Which image of a TIFF is the slide, and what tiles that are missing are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segmitos.errors import InputError, ScaleError, UsageError
from segmitos.io.slide import Slide
from tests.factories import containers, slides


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return slides.picture(300, 200)


def read(path: Path, page: int | None = None) -> np.ndarray:
    with Slide.open(path, page=page) as slide:
        return slide.read(0, 0, slide.width, slide.height)


def save_pages(path: Path, *images: np.ndarray, reduced: tuple[int, ...] = ()) -> None:
    with tifffile.TiffWriter(path) as tif:
        for number, image in enumerate(images):
            tif.write(image, photometric="rgb", metadata=None, subfiletype=int(number in reduced))


def test_the_largest_image_is_the_slide(tmp_path: Path, picture: np.ndarray) -> None:
    save_pages(tmp_path / "a.tif", picture[::4, ::4], picture)
    assert np.array_equal(read(tmp_path / "a.tif"), picture)
    save_pages(tmp_path / "b.tif", picture[::4, ::4], picture, picture[::2, ::2], reduced=(0, 2))
    with Slide.open(tmp_path / "b.tif") as slide:
        assert slide.level_downsamples == (1, 2, 4)
        assert np.array_equal(slide.read(0, 0, 300, 200), picture)


def test_several_images_of_like_size_are_an_error_and_one_can_be_chosen(
    tmp_path: Path, picture: np.ndarray
) -> None:
    path = tmp_path / "a.tif"
    other = slides.picture(280, 210, seed=1)
    save_pages(path, picture, other, picture[::5, ::5])
    with pytest.raises(InputError, match=r"2 images of like size \(page 1: 300 x 200 px, page 2"):
        Slide.open(path)
    assert np.array_equal(read(path, 1), picture)
    assert np.array_equal(read(path, 2), other)
    assert read(path, 3).shape == (40, 60, 3)
    for page in (0, 4, -1):
        with pytest.raises(UsageError, match=f"no page {page}; it holds page 1: 300 x 200 px"):
            Slide.open(path, page=page)


def test_each_page_has_its_own_pyramid(tmp_path: Path, picture: np.ndarray) -> None:
    other = slides.picture(300, 200, seed=1)
    small, little = slides.halved(picture), slides.halved(other)
    save_pages(tmp_path / "a.tif", picture, small, other, little, reduced=(1, 3))
    with Slide.open(tmp_path / "a.tif", mpp=0.25, page=3) as slide:
        assert slide.level_downsamples == (1, 2)
        assert np.array_equal(slide.read(0, 0, 150, 100, 0.5), little)


def test_a_page_has_the_scale_that_it_states_itself(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "made.svs"
    tiles = {"tile": (128, 128), "compression": "jpeg", "photometric": "rgb", "metadata": None}
    small, text = np.ascontiguousarray(picture[::2, ::2]), "Aperio Image Library v12\r\n"
    with tifffile.TiffWriter(path) as file:
        file.write(picture, description=f"{text}|AppMag = 40|MPP = 0.25", **tiles)
        file.write(small, description=f"{text}-> half the size", **tiles)
        file.write(small, description=f"{text}|AppMag = 20|MPP = 0.5", **tiles)
        file.write(small, **tiles)
        file.write(picture, **tiles)
    found = [Slide.open(path, page=page).mpp for page in range(1, 6)]
    assert found == [0.25, None, 0.5, None, 0.25]


def test_focal_planes_of_an_svs_are_told(tmp_path: Path, picture: np.ndarray) -> None:
    text = slides.APERIO.format(w=300, h=200)
    saved: dict[str, Any] = {"photometric": "rgb", "metadata": None, "compression": "jpeg"}
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        for pixels in (picture, picture[::4, ::4], picture[::-1], picture[::-4, ::4]):
            plane = np.ascontiguousarray(pixels)
            file.write(plane, tile=(128, 128), description=text, **saved)
    with pytest.raises(InputError, match=r"2 images of like size \(page 1: .* page 3: 300 x 200"):
        Slide.open(tmp_path / "a.svs")
    pixels = read(tmp_path / "a.svs", page=3).astype(int)
    assert np.abs(pixels - picture[::-1]).mean() < 6


@pytest.mark.parametrize(("tag", "levels"), [((), (1,)), ((6,), (1, 4))])
def test_a_smaller_image_that_is_not_turned_as_the_full_one_is_no_level(
    tmp_path: Path, picture: np.ndarray, tag: tuple[int, ...], levels: tuple[int, ...]
) -> None:
    stored = np.ascontiguousarray(picture.swapaxes(0, 1)[::-1])
    saved: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(stored, extratags=[(274, "H", 1, 6, True)], **saved)
        small = np.ascontiguousarray(stored[::4, ::4])
        tags = [(274, "H", 1, value, True) for value in tag]
        file.write(small, subfiletype=1, extratags=tags, **saved)
    with Slide.open(tmp_path / "a.tif") as slide:
        assert slide.level_downsamples == levels
        assert np.array_equal(slide.read(0, 0, 300, 200), picture)


def test_a_region_that_was_saved_from_an_aperio_slide_is_an_image(
    tmp_path: Path, picture: np.ndarray
) -> None:
    path = tmp_path / "region.tif"
    text = "Aperio Image Library v12\r\n|AppMag = 20|MPP = 0.4990"
    tifffile.imwrite(path, picture, photometric="rgb", description=text, metadata=None)
    with Slide.open(path) as slide:
        assert slide.mpp == 0.499
        assert np.array_equal(slide.read(0, 0, slide.width, slide.height), picture)


@pytest.mark.parametrize(
    ("size", "mpp"),
    [
        ("46000x32914 [0,100 1200x800] (256x256) -> 300x200 JPEG/RGB Q=70", 1.0),
        ("1200x800 -> 300x200 - ", 1.0),
        ("1200x800 [10,10 300x200] (256x256) JPEG/RGB Q=70", 0.25),
        ("1200x800 -> 300x200 - ;Aperio Image Library v10\r\n4800x3200 -> 1200x800 - ", 1.0),
        ("46000x32914 [0,0 300x200] (256x256) -> 300x200 JPEG/RGB Q=70", 0.25),
    ],
)
def test_the_scale_in_aperios_text_is_that_of_the_slide_before_it_was_made_smaller(
    tmp_path: Path, picture: np.ndarray, size: str, mpp: float
) -> None:
    text = f"Aperio Image Library v10\r\n{size}|AppMag = 40|MPP = 0.2500"
    slides.save_tiff(tmp_path / "a.tif", picture, description=text)
    with Slide.open(tmp_path / "a.tif") as slide:
        assert slide.mpp == mpp
        warning = "says 1 um/px (aperio.MPP) and 0.25, of an image 4 times as wide; 1 is used"
        assert [warning in one for one in slide.warnings] == ([True] if mpp == 1 else [])


def test_a_thumbnail_of_an_svs_has_not_the_scale_of_the_slide(
    tmp_path: Path, picture: np.ndarray
) -> None:
    text = "Aperio Image Library v10\r\n46000x32914 -> 300x200 - |AppMag = 20|MPP = 0.4990"
    slides.save_tiff(tmp_path / "a.tif", picture, description=text)
    with Slide.open(tmp_path / "a.tif") as slide, pytest.raises(ScaleError) as raised:
        slide.require_mpp()
    assert "aperio.MPP = '0.499 of an image 153.3 times as wide', which is no" in str(raised.value)


@pytest.mark.parametrize(("step", "warned"), [(1, True), (2, False)])
def test_a_level_with_the_tags_of_the_full_image_has_not_its_scale(
    tmp_path: Path, picture: np.ndarray, step: int, warned: bool
) -> None:
    saved: dict[str, Any] = {"photometric": "rgb", "metadata": None, "tile": (64, 64)}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for level, density in enumerate((40_000, 40_000 / step)):
            pixels, about = picture[:: level + 1, :: level + 1], (density, density)
            file.write(
                np.ascontiguousarray(pixels),
                subfiletype=level,
                resolution=about,
                resolutionunit="CENTIMETER",
                **saved,
            )
    with Slide.open(tmp_path / "a.tif", page=2) as slide:
        assert (slide.width, slide.mpp) == (150, pytest.approx(0.5))
        assert ["0.25, of an image 2 times as wide" in one for one in slide.warnings] == (
            [True] if warned else []
        )


@pytest.mark.parametrize(("text_mpp", "warned"), [(0.25, True), (1.0, False), (1.01, False)])
def test_tags_and_text_of_two_scales_are_told(
    tmp_path: Path, picture: np.ndarray, text_mpp: float, warned: bool
) -> None:
    path, text = tmp_path / "smaller.tif", f"Aperio Image Library v12\r\n|MPP = {text_mpp}"
    saved = {"photometric": "rgb", "metadata": None, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, picture, description=text, resolution=(10_000, 10_000), **saved)
    with Slide.open(path) as slide:
        assert slide.mpp == pytest.approx(1.0)
        told = [one for one in slide.warnings if "and 0.25 (aperio.MPP); 1 is used" in one]
        assert bool(told) == bool(slide.warnings) == warned
    with Slide.open(path, mpp=0.25, override_mpp=True) as slide:
        assert slide.mpp == 0.25


def test_pages_are_those_of_tiff_files(tmp_path: Path, picture: np.ndarray) -> None:
    slides.save_png(tmp_path / "a.png", picture)
    assert Slide.open(tmp_path / "a.png", page=1).width == 300
    with pytest.raises(UsageError, match="no page 2"):
        Slide.open(tmp_path / "a.png", page=2)


def test_stacks_of_one_directory_are_refused(tmp_path: Path, picture: np.ndarray) -> None:
    stack = np.stack([picture] * 3)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, contiguous=True)
    with tifffile.TiffWriter(tmp_path / "b.tif") as tif:
        tif.write(
            stack, photometric="rgb", contiguous=True, metadata={"axes": "ZYXS"}, truncate=True
        )
    for name in ("a.tif", "b.tif"):
        with pytest.raises(InputError, match=r"3 images of like size"):
            Slide.open(tmp_path / name)


@pytest.mark.parametrize("compression", [None, "jpeg", "deflate"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_missing_tiles_are_blank(
    tmp_path: Path, picture: np.ndarray, compression: str | None, bigtiff: bool
) -> None:
    path = tmp_path / "a.tif"
    options = {"tile": (64, 64), "compression": compression, "bigtiff": bigtiff}
    slides.save_tiff(path, picture[:190, :250], **options)
    slides.drop_tiles(path, (0, 1, 2, 3, 4, 8, 10))
    with Slide.open(path) as slide:
        assert slide.bounds == (64, 64, 186, 126)
        pixels = slide.read(0, 0, 250, 190).astype(int)
    assert (pixels[:64] == 255).all()
    assert (pixels[128:, 128:192] == 255).all()
    assert np.abs(pixels[64:128, 64:] - picture[64:128, 64:250]).mean() < 4
    if compression == "jpeg":
        from segmitos.io.slide.openslide import OpenSlideBackend

        theirs = OpenSlideBackend(path)
        assert theirs.bounds == slide.bounds
        assert np.array_equal(theirs.read_level(0, 0, 0, 250, 190), pixels)
        theirs.close()


def test_an_image_without_any_tile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    slides.save_tiff(path, np.zeros((128, 128, 3), np.uint8), tile=(64, 64))
    slides.drop_tiles(path, range(4))
    with pytest.raises(InputError, match=r"all 4 tiles or strips of the image are missing"):
        Slide.open(path)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
def test_gray_of_few_bits_is_stretched(tmp_path: Path, bits: int) -> None:
    values = np.arange(7 * 13).reshape(7, 13).astype(np.uint8) % (1 << bits)
    (tmp_path / "a.tif").write_bytes(containers.packed_gray_tiff(values, bits))
    expected = np.round(values * 255.0 / ((1 << bits) - 1))
    assert np.array_equal(read(tmp_path / "a.tif")[..., 1], expected)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_png_of_few_bits_is_stretched(tmp_path: Path, bits: int) -> None:
    values = np.arange(7 * 16).reshape(7, 16).astype(np.uint8) % (1 << bits)
    (tmp_path / "a.png").write_bytes(packed_gray_png(values, bits))
    expected = np.round(values * 255.0 / ((1 << bits) - 1))
    assert np.array_equal(read(tmp_path / "a.png")[..., 1], expected)


def packed_gray_png(values: np.ndarray, bits: int) -> bytes:
    import struct
    import zlib

    height, width = values.shape
    planes = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(planes.reshape(height, width * bits), axis=1)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_what_is_transparent_everywhere_is_refused(tmp_path: Path, picture: np.ndarray) -> None:
    from PIL import Image

    clear = np.dstack([picture, np.zeros(picture.shape[:2], np.uint8)])
    slides.save_png(tmp_path / "a.png", clear)
    Image.fromarray(clear[..., [0, 3]], "LA").save(tmp_path / "b.png")
    slides.save_tiff(tmp_path / "c.tif", clear, extrasamples=["unassalpha"])
    slides.save_tiff(tmp_path / "d.tif", clear, extrasamples=["assocalpha"], tile=(64, 64))
    for name in ("a.png", "b.png", "c.tif", "d.tif"):
        with pytest.raises(InputError, match=f"{name}: the image is transparent everywhere"):
            read(tmp_path / name)
        with Slide.open(tmp_path / "a.png") as slide, pytest.raises(InputError):
            slide.thumbnail(50)
    seen = clear.copy()
    seen[150, 150, 3] = 255
    slides.save_png(tmp_path / "a.png", seen)
    slides.save_tiff(tmp_path / "d.tif", seen, extrasamples=["unassalpha"], tile=(64, 64))
    for name in ("a.png", "d.tif"):
        assert (read(tmp_path / name)[150, 150] == picture[150, 150]).all()


def test_what_the_program_draws_is_no_image(tmp_path: Path) -> None:
    from segmitos.io.map_tiff import encode_map

    (tmp_path / "probability.tif").write_bytes(encode_map(np.zeros((40, 40), np.uint8), 1.0))
    with pytest.raises(InputError, match="a probability map"):
        Slide.open(tmp_path / "probability.tif")


def test_directories_that_run_in_a_circle(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    slides.save_tiff(path, picture)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        following = page.offset + 2 + 12 * len(page.tags)
        start = page.offset
    content = bytearray(path.read_bytes())
    assert content[following : following + 4] == bytes(4)
    content[following : following + 4] = start.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match="directories run in a circle"):
        Slide.open(path)


def test_real_sparse_tiff(cases_dir: Path) -> None:
    with Slide.open(cases_dir / "sparse_tiff" / "sparse_jpeg.tif") as slide:
        assert slide.bounds == (0, 0, 1024, 1024)
        pixels = slide.read(0, 0, 2048, 2048)
    assert (pixels[1024:] == 255).all()
    assert (pixels[:, 1024:] == 255).all()
    assert pixels[:1024, :1024].mean() < 230


def test_real_dicom_with_a_tiff_header(cases_dir: Path) -> None:
    with Slide.open(cases_dir / "dicom_tiff_preamble" / "boxes_0.dcm") as slide:
        assert (slide.format, slide.width, slide.height, slide.mpp) == ("dicom", 16, 16, 0.499)
