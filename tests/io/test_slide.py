"""Every format read by one face: places, scales, tiles."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segmitos.errors import InputError, ScaleError, UsageError
from segmitos.io.geometry import check_mpp
from segmitos.io.slide import Slide
from tests.factories import slides

FORMATS = slides.LOSSLESS | slides.LOSSY


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return slides.picture(300, 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, picture: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for name, save in FORMATS.items():
        save(folder / name, picture)
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_whole_image_comes_back(folder: Path, picture: np.ndarray, name: str) -> None:
    with Slide.open(folder / name) as slide:
        assert (slide.width, slide.height) == (300, 200)
        assert slide.bounds == (0, 0, 300, 200)
        pixels = slide.read(0, 0, 300, 200)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    difference = np.abs(pixels.astype(int) - picture)
    if name in slides.LOSSLESS:
        assert difference.max() == 0
    else:
        assert difference.mean() < 3


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mpp", [None, 0.25, 0.275, 0.21, 0.5, 0.7, 1.0])
def test_tiles_stitch_to_the_whole(folder: Path, name: str, mpp: float | None) -> None:
    step = 1.0 if mpp is None else mpp / 0.25
    width, height = round(300 / step) + 7, round(200 / step) + 5
    with Slide.open(folder / name, mpp=0.25) as slide:
        whole = slide.read(-3 * step, -2 * step, width, height, mpp)
        stitched = np.zeros_like(whole)
        for y in range(0, height, 41):
            for x in range(0, width, 67):
                w, h = min(67, width - x), min(41, height - y)
                tile = slide.read((x - 3) * step, (y - 2) * step, w, h, mpp)
                stitched[y : y + h, x : x + w] = tile
    assert np.array_equal(stitched, whole)


@settings(max_examples=60, deadline=None)
@given(
    mpp=st.floats(0.1, 3),
    first=st.tuples(st.integers(-20, 900), st.integers(-20, 900)),
    cut=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_any_cut_at_any_scale_gives_the_same_pixels(
    mpp: float, first: tuple[int, int], cut: tuple[int, int]
) -> None:
    slide = Slide.from_array(slides.picture(160, 140), 0.25)
    step = mpp / 0.25
    x, y = first[0] % max(1, int(160 / step)), first[1] % max(1, int(140 / step))
    whole = slide.read(x * step, y * step, 61, 61, mpp)
    part = slide.read((x + cut[0]) * step, (y + cut[1]) * step, 61 - cut[0], 61 - cut[1], mpp)
    assert np.array_equal(part, whole[cut[1] :, cut[0] :])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mpp", [0.2, 0.25, 0.4, 0.5, 0.75, 1.0])
def test_places_are_true_at_every_scale(tmp_path: Path, name: str, mpp: float) -> None:
    """The center of mass of a disc stays where it is, in level-0 pixels."""
    y, x = np.mgrid[:256, :256]
    image = np.full((256, 256, 3), 255, np.uint8)
    image[np.hypot(x - 90.5, y - 150.25) < 14] = 0
    FORMATS[name](tmp_path / name, image)
    step = mpp / 0.25
    with Slide.open(tmp_path / name, mpp=0.25) as slide:
        x_px, y_px = 40.0, 96.0
        side = int(110 / step)
        dark = 255.0 - slide.read(x_px, y_px, side, side, mpp)[..., 0].astype(float)
    dark[dark < 30] = 0
    at = x_px - 0.5 + (np.arange(side) + 0.5) * step
    found_x = (dark.sum(0) * at).sum() / dark.sum()
    at = y_px - 0.5 + (np.arange(side) + 0.5) * step
    found_y = (dark.sum(1) * at).sum() / dark.sum()
    inside = np.hypot(x - 90.5, y - 150.25) < 14
    assert abs(found_x - x[inside].mean()) < 0.15
    assert abs(found_y - y[inside].mean()) < 0.15


def test_outside_is_white_and_does_not_leak_in() -> None:
    slide = Slide.from_array(np.zeros((50, 40, 3), np.uint8), 0.25)
    for mpp in (0.25, 0.3, 0.2, 1.0):
        step = mpp / 0.25
        ahead = round(20 / step)
        pixels = slide.read(-ahead * step, -ahead * step, 100, 100, mpp)
        centers = -0.5 + (np.arange(100) - ahead + 0.5) * step
        across = (centers > -0.5) & (centers < 39.5)
        down = (centers > -0.5) & (centers < 49.5)
        expected = np.where(np.outer(down, across), 0, 255)
        assert np.array_equal(pixels[..., 1], expected)
    assert (slide.read(1000, 1000, 5, 4, 0.3) == 255).all()
    assert slide.read(0, 0, 0, 4).shape == (4, 0, 3)


def test_reduction_does_not_alias() -> None:
    """A fine checkerboard becomes even gray, not moire."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    slide = Slide.from_array(np.repeat(board[..., None], 3, 2), 0.25)
    gray = slide.read(0, 0, 40, 40, 1.1).astype(int)
    assert abs(gray - 127).max() < 20


def test_scaled_pixels_agree_with_pillow() -> None:
    image = slides.picture(500, 400)
    slide = Slide.from_array(image, 0.25)
    ours = slide.read(0, 0, 400, 320, 0.3125)
    theirs = np.asarray(Image.fromarray(image).resize((400, 320), Image.Resampling.BILINEAR))
    inner = np.abs(ours.astype(int) - theirs)[4:-4, 4:-4]
    assert inner.max() <= 1


def test_fractional_corner_shifts_by_the_fraction() -> None:
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[None], 20, 0)
    slide = Slide.from_array(np.repeat(ramp[..., None], 3, 2), 0.25)
    assert np.array_equal(slide.read(10.5, 4, 20, 5)[0, :, 0], np.arange(21, 61, 2))


def test_coarse_levels_are_used_and_agree(folder: Path, picture: np.ndarray) -> None:
    with Slide.open(folder / "pyramid.tif") as slide:
        assert slide.level_downsamples == (1.0, 2.0, 4.0)
        half = slide.read(0, 0, 150, 100, 0.5)
        assert np.array_equal(half, slides.halved(picture))
        quarter = slide.read(0, 0, 75, 50, 1.0)
        assert np.array_equal(quarter, slides.halved(slides.halved(picture)))


@pytest.mark.parametrize(
    ("name", "mpp", "source"),
    [
        ("pyramid.tif", 0.25, "embedded: TIFF resolution"),
        ("bigtiff.btf", 0.25, "embedded: TIFF resolution"),
        ("slide.ome.tiff", 0.25, "embedded: OME PhysicalSizeX"),
        ("aperio.svs", 0.25, "embedded: aperio.MPP"),
        ("plain.png", None, "unknown"),
        ("strips.tif", None, "unknown"),
    ],
)
def test_scale_in_the_file(folder: Path, name: str, mpp: float | None, source: str) -> None:
    with Slide.open(folder / name) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
        assert slide.mpp_source == source
    with Slide.open(folder / name, mpp=0.5, override_mpp=True) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.5, "given")


@pytest.mark.parametrize(("unit", "size"), [("nm", 250.0), ("mm", 0.00025), ("µm", 0.25)])
def test_ome_units(tmp_path: Path, picture: np.ndarray, unit: str, size: float) -> None:
    slides.save_ome(tmp_path / "a.ome.tif", picture, unit, size)
    with Slide.open(tmp_path / "a.ome.tif") as slide:
        assert slide.mpp == pytest.approx(0.25)


@pytest.mark.parametrize("dpi", [72, 96, 150, 300, 600, 1200, 2400])
def test_screen_and_print_density_is_no_scale(tmp_path: Path, dpi: int) -> None:
    image = slides.picture(20, 10)
    slides.save_png(tmp_path / "a.png", image, dpi=(dpi, dpi))
    slides.save_jpeg(tmp_path / "a.jpg", image, dpi=(dpi, dpi))
    slides.save_tiff(tmp_path / "a.tif", image, resolution=(dpi, dpi), resolutionunit="INCH")
    for name in ("a.png", "a.jpg", "a.tif"):
        with Slide.open(tmp_path / name) as slide:
            assert slide.mpp is None
            with pytest.raises(ScaleError, match=r"--mpp 0\.25"):
                slide.require_mpp()
            with pytest.raises(ScaleError, match="does not say its scale"):
                slide.read(0, 0, 4, 4, mpp=0.25)


def test_microscope_density_is_the_scale(tmp_path: Path) -> None:
    image = slides.picture(20, 10)
    slides.save_png(tmp_path / "a.png", image, dpi=(101600, 101600))
    with Slide.open(tmp_path / "a.png") as slide:
        assert slide.mpp == pytest.approx(0.25, rel=1e-4)
        assert slide.mpp_source == "embedded: PNG pHYs"


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    image = slides.picture(20, 10)
    slides.save_tiff(path, image, resolution=(40000, 30000), resolutionunit="CENTIMETER")
    for mpp in (None, 0.25):
        with pytest.raises(ScaleError, match=r"0\.25 x 0\.3333 um.* --override-mpp"):
            Slide.open(path, mpp=mpp)
    assert Slide.open(path, mpp=0.25, override_mpp=True).mpp == 0.25
    slides.save_tiff(path, image, resolution=(40000, 39800), resolutionunit="CENTIMETER")
    assert Slide.open(path).mpp == pytest.approx(0.25063, abs=1e-4)


@pytest.mark.parametrize("value", [0, -1, 1e9, float("nan"), float("inf"), "0.25", None, True])
def test_impossible_scales(folder: Path, value: Any) -> None:
    with pytest.raises(ScaleError, match=str(value)):
        check_mpp(value, "--mpp")
    if value is not None:
        with pytest.raises(ScaleError, match=r"plain\.png: mpp"):
            Slide.open(folder / "plain.png", mpp=value)


def test_possible_scales() -> None:
    for value in (0.01, 0.25, 1, np.float32(0.5), 200):
        assert check_mpp(value, "x") == float(value)


@pytest.mark.parametrize("name", FORMATS)
def test_thumbnail(folder: Path, picture: np.ndarray, name: str) -> None:
    with Slide.open(folder / name) as slide:
        small = slide.thumbnail(90)
        assert small.shape == (60, 90, 3)
        expected = np.asarray(Image.fromarray(picture).resize((90, 60), Image.Resampling.BILINEAR))
        assert np.abs(small.astype(int) - expected).mean() < 5
        assert slide.thumbnail(5000).shape == (200, 300, 3)


@pytest.mark.parametrize("name", ["plain.jpg", "jpeg-tiles.tif", "aperio.svs", "slide.ome.tiff"])
def test_threads_read_what_one_thread_reads(folder: Path, name: str) -> None:
    places = [(x, y) for y in range(0, 200, 40) for x in range(0, 300, 50)]
    with Slide.open(folder / name, mpp=0.25) as slide:
        alone = [slide.read(x, y, 64, 64, 0.3) for x, y in places]
    with Slide.open(folder / name, mpp=0.25) as slide, ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda at: slide.read(at[0], at[1], 64, 64, 0.3), places))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_arrays() -> None:
    image = slides.picture(30, 20)
    slide = Slide.from_array(image, 0.25, name="mine")
    assert (slide.mpp, slide.mpp_source, slide.format) == (0.25, "given", "array")
    assert np.array_equal(slide.read(5, 6, 7, 8), image[6:14, 5:12])
    for wrong in (image.astype(float), image[..., 0], image[:0], np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(InputError, match="give uint8"):
            Slide.from_array(wrong, 0.25)
    with pytest.raises(UsageError, match="no region"):
        slide.read(0, 0, -1, 5)


def test_one_pixel(tmp_path: Path) -> None:
    image = np.full((1, 1, 3), 77, np.uint8)
    for name, save in slides.LOSSLESS.items():
        if "pyramid" in name or name in ("bigtiff.btf", "slide.ome.tiff"):
            continue
        save(tmp_path / name, image)
        with Slide.open(tmp_path / name, mpp=0.25) as slide:
            assert slide.read(0, 0, 1, 1).tolist() == [[[77, 77, 77]]]
            assert slide.read(0, 0, 2, 2, 0.1).shape == (2, 2, 3)
            assert slide.thumbnail(100).shape == (1, 1, 3)


def test_small_images_need_no_slide_libraries(folder: Path) -> None:
    code = (
        "import sys; from segmitos.io.slide import Slide\n"
        f"Slide.open({str(folder / 'plain.png')!r}, mpp=0.25).read(0, 0, 300, 200, 0.3)\n"
        f"Slide.open({str(folder / 'plain.jpg')!r}, mpp=0.25).read(0, 0, 300, 200)\n"
        "print([m for m in ('openslide', 'tifffile', 'imagecodecs', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_real_frames(data_dir: Path) -> None:
    frames = sorted((data_dir / "mitos-atypia-14" / "H03" / "frames" / "x40").glob("*.jpg"))[:3]
    for frame in frames:
        with Slide.open(frame, mpp=0.2273) as slide:
            pixels = slide.read(0, 0, slide.width, slide.height)
            assert np.array_equal(pixels, np.asarray(Image.open(frame)))
            size = round(slide.width * 0.2273 / 0.25), round(slide.height * 0.2273 / 0.25)
            scaled = slide.read(0, 0, *size, 0.25)
        assert abs(scaled.mean() - pixels.mean()) < 1


def test_a_picture_read_in_many_chunks_is_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(4).integers(0, 256, (900, 1300, 3)).astype(np.uint8)
    slide = Slide.from_array(image, 0.25)
    whole = slide.thumbnail(500)
    monkeypatch.setattr("segmitos.io.slide.resample.CHUNK_PX", 300)
    np.testing.assert_array_equal(slide.thumbnail(500), whole)
