"""Gray, alpha, palette, CMYK, 16-bit, turned: read right, or refused by name."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from segmitos.errors import InputError
from segmitos.io.slide import Slide
from tests.factories import slides


def read(path: Path) -> np.ndarray:
    with Slide.open(path) as slide:
        return slide.read(0, 0, slide.width, slide.height)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return slides.picture(60, 40)


def test_gray_and_bilevel(tmp_path: Path, picture: np.ndarray) -> None:
    gray = picture[..., 1]
    slides.save_png(tmp_path / "a.png", gray)
    slides.save_tiff(tmp_path / "b.tif", gray, photometric="minisblack")
    slides.save_tiff(tmp_path / "c.tif", 255 - gray, photometric="miniswhite")
    slides.save_tiff(tmp_path / "d.tif", gray, photometric="minisblack", tile=(16, 16))
    for name in "a.png", "b.tif", "c.tif", "d.tif":
        assert np.array_equal(read(tmp_path / name), np.repeat(gray[..., None], 3, 2)), name
    dark = gray > 128
    Image.fromarray(dark).save(tmp_path / "e.png")
    Image.fromarray(dark).save(tmp_path / "f.tif", compression="group4")
    for name in "e.png", "f.tif":
        assert np.array_equal(read(tmp_path / name)[..., 2] == 255, dark), name


def test_alpha_is_seen_over_white(tmp_path: Path, picture: np.ndarray) -> None:
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:, :20], alpha[:, 20:40] = 0, 128
    rgba = np.dstack([picture, alpha])
    expected = np.round((picture * (alpha / 255.0)[..., None]) + 255.0 - alpha[..., None])
    slides.save_png(tmp_path / "a.png", rgba)
    slides.save_tiff(tmp_path / "b.tif", rgba, extrasamples=["unassalpha"])
    premultiplied = np.round(rgba * (alpha / 255.0)[..., None]).astype(np.uint8)
    premultiplied[..., 3] = alpha
    slides.save_tiff(tmp_path / "c.tif", premultiplied, extrasamples=["assocalpha"], tile=(16, 32))
    slides.save_tiff(tmp_path / "d.tif", rgba, extrasamples=["unspecified"])
    for name in "a.png", "b.tif", "c.tif":
        assert np.abs(read(tmp_path / name) - expected).max() <= 1, name
    assert np.array_equal(read(tmp_path / "d.tif"), picture)
    gray = np.dstack([picture[..., 0], alpha])
    Image.fromarray(gray, "LA").save(tmp_path / "e.png")
    assert np.abs(read(tmp_path / "e.png")[..., 1] - expected[..., 0]).max() <= 1


def test_palettes(tmp_path: Path, picture: np.ndarray) -> None:
    image = Image.fromarray(picture).quantize(64)
    expected = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.tif")
    image.save(tmp_path / "c.bmp")
    for name in "a.png", "b.tif", "c.bmp":
        assert np.array_equal(read(tmp_path / name), expected), name
    image.save(tmp_path / "d.png", transparency=0)
    white = np.asarray(image) == 0
    assert (read(tmp_path / "d.png")[white] == 255).all()
    assert np.array_equal(read(tmp_path / "d.png")[~white], expected[~white])


def test_transparent_color_of_an_rgb_png(tmp_path: Path, picture: np.ndarray) -> None:
    image = picture.copy()
    image[:5] = (1, 2, 3)
    Image.fromarray(image).save(tmp_path / "a.png", transparency=(1, 2, 3))
    assert (read(tmp_path / "a.png")[:5] == 255).all()
    assert np.array_equal(read(tmp_path / "a.png")[5:], picture[5:])


def test_cmyk(tmp_path: Path, picture: np.ndarray) -> None:
    cmyk = Image.fromarray(picture).convert("CMYK")
    expected = np.asarray(cmyk.convert("RGB"))
    cmyk.save(tmp_path / "a.jpg", quality=98, subsampling=0)
    cmyk.save(tmp_path / "b.tif")
    assert np.abs(read(tmp_path / "a.jpg").astype(int) - expected).mean() < 3
    assert np.array_equal(read(tmp_path / "b.tif"), expected)


@pytest.mark.parametrize(
    ("compression", "photometric", "is_ycbcr"),
    [
        *[(33003, "ycbcr", True), (33003, "rgb", True)],
        *[(33005, "ycbcr", False), (33005, "rgb", False)],
        *[(34712, "ycbcr", True), (34712, "rgb", False)],
    ],
)
@pytest.mark.parametrize("description", [None, "Aperio Image Library v12\r\n|MPP = 0.25"])
def test_jpeg_2000_in_its_color_space(
    tmp_path: Path, compression: int, photometric: str, is_ycbcr: bool, description: str | None
) -> None:
    picture = slides.picture(256, 256)
    stored = np.asarray(Image.fromarray(picture).convert("YCbCr")) if is_ycbcr else picture
    tile = imagecodecs.jpeg2k_encode(stored, level=0, mct=False, codecformat="j2k", reversible=True)
    options = {"shape": stored.shape, "dtype": np.uint8, "tile": (256, 256), "metadata": None}
    options |= {"photometric": photometric, "compression": compression}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(iter([tile]), description=description, **options)
    with Slide.open(tmp_path / "a.tif", page=1) as slide:
        found = slide.read(0, 0, 256, 256).astype(int)
    assert np.abs(found - picture).max() <= (3 if is_ycbcr else 0)


def test_sixteen_bits_over_their_whole_range(tmp_path: Path, picture: np.ndarray) -> None:
    wide = picture.astype(np.uint16) * 257
    Image.fromarray(wide[..., 0]).save(tmp_path / "a.png")
    slides.save_tiff(tmp_path / "b.tif", wide)
    slides.save_tiff(tmp_path / "c.tif", wide[..., 0], photometric="minisblack")
    assert np.array_equal(read(tmp_path / "a.png")[..., 0], picture[..., 0])
    assert np.array_equal(read(tmp_path / "b.tif"), picture)
    assert np.array_equal(read(tmp_path / "c.tif")[..., 2], picture[..., 0])


@pytest.mark.parametrize("bits", [12, 14, 15])
def test_fewer_bits_in_sixteen_are_refused(tmp_path: Path, picture: np.ndarray, bits: int) -> None:
    narrow = picture.astype(np.uint16) << (bits - 8)
    opaque = np.dstack([narrow, np.full(narrow.shape[:2], 65535, np.uint16)])
    for name, pixels in {"rgb": narrow, "rgba": opaque, "la": opaque[..., 2:]}.items():
        content = imagecodecs.png_encode(np.ascontiguousarray(pixels))
        (tmp_path / f"{name}.png").write_bytes(content)
    Image.fromarray(narrow[..., 0]).save(tmp_path / "gray.png")
    slides.save_tiff(tmp_path / "rgb.tif", narrow)
    for kind in "unassalpha", "assocalpha", "unspecified":
        slides.save_tiff(tmp_path / f"{kind}.tif", opaque, extrasamples=[kind])
    slides.save_tiff(
        tmp_path / "la.tif", opaque[..., 2:], photometric="minisblack", extrasamples=["unassalpha"]
    )
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match=f"{path.name}: 16-bit samples with values only up to"):
            read(path)


def test_sixteen_bit_color_of_a_png(tmp_path: Path, picture: np.ndarray) -> None:
    wide = picture.astype(np.uint16) * 257
    clear = np.dstack([wide, np.full(wide.shape[:2], 65535, np.uint16)])
    for name, pixels in {"rgb.png": wide, "rgba.png": clear}.items():
        (tmp_path / name).write_bytes(imagecodecs.png_encode(pixels))
        assert np.array_equal(read(tmp_path / name), picture)


def test_sixteen_bits_where_their_range_cannot_be_seen(tmp_path: Path, picture: np.ndarray) -> None:
    wide = picture.astype(np.uint16) * 257
    slides.save_tiff(tmp_path / "tiled.tif", wide, tile=(32, 32))
    tifffile.imwrite(tmp_path / "a.ome.tif", wide, photometric="rgb", ome=True)
    for name in "tiled.tif", "a.ome.tif":
        with pytest.raises(InputError, match=f"{name}: .*uint16.*8-bit RGB"):
            Slide.open(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, picture: np.ndarray, orientation: int) -> None:
    slides.save_rotated_jpeg(tmp_path / "a.jpg", picture, orientation)
    with Slide.open(tmp_path / "a.jpg") as slide:
        assert (slide.width, slide.height) == (60, 40)
        pixels = slide.read(0, 0, 60, 40)
    assert np.abs(pixels.astype(int) - picture).mean() < 3


@pytest.mark.parametrize("behind_pixels", [False, True])
def test_orientation_of_a_png_wherever_its_exif_stands(
    tmp_path: Path, picture: np.ndarray, behind_pixels: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path, exif=exif)
    if behind_pixels:
        content = path.read_bytes()
        start = content.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        end_chunk = content.index(b"IEND") - 4
        moved = content[:start] + content[end:end_chunk] + content[start:end] + content[end_chunk:]
        path.write_bytes(moved)
    with Slide.open(path, mpp=0.25) as slide:
        assert (slide.width, slide.height) == picture.shape[:2]


def test_orientation_of_a_tiff(tmp_path: Path, picture: np.ndarray) -> None:
    stored = np.ascontiguousarray(picture.swapaxes(0, 1)[::-1])
    tag = [(274, 3, 1, 6, True)]
    slides.save_tiff(tmp_path / "a.tif", stored, extratags=tag)
    with Slide.open(tmp_path / "a.tif") as slide:
        assert (slide.width, slide.height) == (60, 40)
        assert np.array_equal(slide.read(0, 0, 60, 40), picture)
    slides.save_tiff(tmp_path / "b.tif", stored, extratags=tag, tile=(16, 16))
    with pytest.raises(InputError, match="orientation 6"):
        Slide.open(tmp_path / "b.tif")


def test_fluorescence_is_refused_by_name(tmp_path: Path, picture: np.ndarray) -> None:
    slides.save_fluorescence(tmp_path / "a.ome.tif")
    with pytest.raises(InputError, match=r"5 separate channels \(DAPI, FITC.*fluorescence"):
        Slide.open(tmp_path / "a.ome.tif")
    stack = np.zeros((5, 40, 60), np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", stack, photometric="minisblack", metadata=None)
    tifffile.imwrite(tmp_path / "c.tif", stack, photometric="minisblack", imagej=True)
    for name in "b.tif", "c.tif":
        with pytest.raises(InputError, match=rf"{name}: 5 images of like size .*"):
            Slide.open(tmp_path / name)
    five = np.zeros((40, 60, 5), np.uint8)
    slides.save_tiff(tmp_path / "d.tif", five, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=r"5 samples per pixel.*fluorescence"):
        Slide.open(tmp_path / "d.tif")
    floats = np.zeros((40, 60), np.float32)
    slides.save_tiff(tmp_path / "e.tif", floats, photometric="minisblack")
    with pytest.raises(InputError, match="float32 samples"):
        Slide.open(tmp_path / "e.tif")


def test_red_green_blue_as_ome_channels(tmp_path: Path, picture: np.ndarray) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        picture.transpose(2, 0, 1),
        ome=True,
        photometric="minisblack",
        tile=(16, 32),
        metadata={"axes": "CYX", "Channel": {"Name": ["Red", "Green", "Blue"]}},
    )
    assert np.array_equal(read(tmp_path / "a.ome.tif"), picture)


def test_imagej_scale(tmp_path: Path, picture: np.ndarray) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", picture, imagej=True, resolution=(4, 4), metadata={"unit": "um"}
    )
    with Slide.open(tmp_path / "a.tif") as slide:
        assert slide.mpp == pytest.approx(0.25)
        assert slide.mpp_source == "embedded: ImageJ unit"
        assert np.array_equal(slide.read(0, 0, 60, 40), picture)


def test_sixteen_bits_are_rounded_to_eight(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 385, 386, 65406, 65407, 65535]], np.uint16)
    slides.save_tiff(tmp_path / "a.tif", values, photometric="minisblack")
    Image.fromarray(values).save(tmp_path / "a.png")
    for name in "a.tif", "a.png":
        assert read(tmp_path / name)[0, :, 0].tolist() == [0, 0, 1, 1, 2, 254, 255, 255]


def test_a_predictor_that_programs_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    slides.save_tiff(path, slides.picture(), compression="lerc", predictor="horizontal")
    with pytest.raises(InputError, match="predictor 2 with LERC compression"):
        Slide.open(path)
    slides.save_tiff(path, slides.picture(), compression="lerc")
    with Slide.open(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 300, 200), slides.picture())
