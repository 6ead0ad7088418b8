"""Slides that OpenSlide reads: the same pixels, scale and errors by the same face."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmitos.errors import InputError
from segmitos.io.slide import Slide
from segmitos.io.slide.openslide import OpenSlideBackend
from segmitos.io.slide.tiff import TiffBackend, open_tiff
from tests.factories import slides
from tests.factories.dicom import save_dicom
from tests.factories.leica import save_scn


def through_openslide(path: Path, mpp: float | None = 0.25) -> Slide:
    return Slide(path, OpenSlideBackend(path), mpp, "given")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return slides.picture(600, 500)


def save_sparse_svs(path: Path, image: np.ndarray) -> None:
    """An SVS whose scanner skipped tile 2 (x 256..383, y 0..127)."""
    tiles: list[np.ndarray | None] = [
        image[y : y + 128, x : x + 128] for y in (0, 128, 256) for x in (0, 128, 256, 384)
    ]
    tiles[2] = None
    tifffile.imwrite(
        path,
        iter(tiles),
        shape=(384, 512, 3),
        dtype=np.uint8,
        tile=(128, 128),
        compression="jpeg",
        compressionargs={"level": 95},
        photometric="rgb",
        metadata=None,
        description=slides.APERIO.format(w=512, h=384),
    )


def test_both_readers_agree(tmp_path: Path, picture: np.ndarray) -> None:
    slides.save_svs(tmp_path / "a.svs", picture)
    ours = open_tiff(tmp_path / "a.svs")
    assert isinstance(ours, TiffBackend)
    theirs = OpenSlideBackend(tmp_path / "a.svs")
    assert ours.format == theirs.format == "aperio"
    assert ours.levels == theirs.levels
    assert ours.scale is not None
    assert theirs.scale is not None
    assert (ours.scale.mpp_x, theirs.scale.mpp_x) == (0.25, 0.25)
    for level, size in enumerate(ours.levels):
        box = (level, 0, 0, size.width, size.height)
        assert np.array_equal(ours.read_level(*box), theirs.read_level(*box))
    ours.close()
    theirs.close()


@pytest.mark.parametrize("mpp", [0.25, 0.3, 0.6, 1.1])
@pytest.mark.parametrize("whole_steps", [True, False])
def test_tiles_stitch_to_the_whole(
    tmp_path: Path, picture: np.ndarray, mpp: float, whole_steps: bool
) -> None:
    path = tmp_path / "a.tif"
    if whole_steps:
        slides.save_pyramid(path, picture)
    else:
        # The second level is 2.298 times smaller: its pixels begin between level-0 pixels.
        with tifffile.TiffWriter(path) as tif:
            options = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
            tif.write(picture, **options)
            tif.write(slides.picture(261, 218), subfiletype=1, **options)
    step = mpp / 0.25
    width, height = int(600 / step), int(500 / step)
    with through_openslide(path) as slide:
        whole = slide.read(0, 0, width, height, mpp)
        stitched = np.zeros_like(whole)
        for y in range(0, height, 111):
            for x in range(0, width, 97):
                w, h = min(97, width - x), min(111, height - y)
                stitched[y : y + h, x : x + w] = slide.read(x * step, y * step, w, h, mpp)
    assert np.array_equal(stitched, whole)


def test_unscanned_areas_are_white(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.svs"
    save_sparse_svs(path, picture)
    with Slide.open(path) as slide:
        assert slide.format == "aperio"
        assert (slide.mpp, slide.mpp_source) == (0.25, "embedded: openslide.mpp-x")
        pixels = slide.read(0, 0, 512, 384)
    assert (pixels[:128, 256:384] == 255).all()
    assert np.abs(pixels[128:].astype(int) - picture[128:384, :512]).mean() < 3


def test_scale_unknown(tmp_path: Path, picture: np.ndarray) -> None:
    slides.save_svs(tmp_path / "a.svs", picture, mpp=False)
    assert Slide.open(tmp_path / "a.svs").mpp is None
    with through_openslide(tmp_path / "a.svs", None) as slide:
        assert slide._source.scale is None


def test_an_error_does_not_stick(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.svs"
    save_sparse_svs(path, picture)
    slides.corrupt_tile(path, 5)
    with Slide.open(path) as slide:
        for _ in range(2):
            with pytest.raises(InputError, match=r"a\.svs: damaged at level-0 pixel \(140, 140\)"):
                slide.read(140, 140, 60, 60)
        assert slide.read(300, 200, 40, 40).shape == (40, 40, 3)


def test_the_scale_before_a_slide_was_made_smaller(tmp_path: Path, picture: np.ndarray) -> None:
    size = f"{picture.shape[1]}x{picture.shape[0]}"
    text = f"Aperio Image Library v12\r\n9x9 [0,0 {4 * picture.shape[1]}x999] -> {size}|MPP = 0.25"
    options = {"compression": "jpeg", "tile": (64, 64), "description": text}
    slides.save_tiff(tmp_path / "a.svs", picture, **options)
    slides.drop_tiles(tmp_path / "a.svs", [0])
    with Slide.open(tmp_path / "a.svs") as slide:
        assert slide.mpp == 1.0
        assert "0.25, of an image 4 times as wide" in slide.warnings[0]


def test_slide_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match="not a slide that OpenSlide knows; the folder a with"):
        Slide.open(tmp_path / "a.mrxs")


def test_bounds_are_where_the_slide_was_scanned(tmp_path: Path, picture: np.ndarray) -> None:
    save_scn(tmp_path / "a.scn", picture, (1501, 703), (4000, 3000))
    with Slide.open(tmp_path / "a.scn") as slide:
        assert (slide.format, slide.width, slide.height) == ("leica", 4000, 3000)
        assert slide.bounds == (1501, 703, 600, 500)
        assert slide.mpp == pytest.approx(0.25)
        pixels = slide.read(1501, 703, 600, 500)
        assert (slide.read(0, 0, 1400, 600) == 255).all()
    assert np.abs(pixels.astype(int) - picture).mean() < 3


def test_a_dicom_slide_is_read_whatever_its_preamble_is(
    tmp_path: Path, picture: np.ndarray
) -> None:
    """The first 128 bytes are free: often they make the file a TIFF, too."""
    save_dicom(tmp_path / "a.dcm", picture, preamble=b"II*\0\x80\0\0\0")
    save_dicom(tmp_path / "b.dcm", slides.halved(picture), mpp=0.5, preamble=b"\x89PNG\r\n\x1a\n")
    for name in ("a.dcm", "b.dcm"):
        with Slide.open(tmp_path / name) as slide:
            assert (slide.format, slide.mpp, slide.level_downsamples) == ("dicom", 0.25, (1, 2))
            assert np.array_equal(slide.read(0, 0, 600, 500), picture)


def test_real_bounds(cases_dir: Path) -> None:
    with Slide.open(cases_dir / "qupath_bounds" / "offset.scn") as slide:
        assert slide.bounds == (2999, 1999, 1663, 1485)


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode there")
def test_slides_whose_name_is_not_utf8(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.scn")
    try:
        save_scn(path, picture, (0, 0), (4000, 3000))
    except OSError:
        pytest.skip("this file system takes Unicode names alone")
    with Slide.open(path) as slide:
        assert slide.width == 4000
    path.write_bytes(b"II*\0")
    with pytest.raises(InputError, match="damaged"):
        Slide.open(path)
