"""Whose scale holds: the file's, the user's, and what is said where they differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmitos.errors import ScaleError, UsageError
from segmitos.io.slide import Slide
from tests.factories import slides


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return slides.picture(60, 40)


def test_the_scale_of_the_file_holds_and_a_difference_is_warned_of(
    tmp_path: Path, picture: np.ndarray
) -> None:
    path = tmp_path / "a.svs"
    slides.save_svs(path, picture)
    with Slide.open(path, mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.25, "embedded: aperio.MPP")
        (warning,) = slide.warnings
    for part in ("a.svs", "0.25 um/px (aperio.MPP)", "0.5 was given", "0.25 is used"):
        assert part in warning
    for mpp in (None, 0.25, 0.2549, 0.2451):
        assert Slide.open(path, mpp=mpp).warnings == ()
    assert Slide.open(path, mpp=0.256).warnings


def test_a_given_scale_fills_in_or_overrides(tmp_path: Path, picture: np.ndarray) -> None:
    slides.save_png(tmp_path / "a.png", picture)
    with Slide.open(tmp_path / "a.png", mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source, slide.warnings) == (0.5, "given", ())
    slides.save_svs(tmp_path / "a.svs", picture)
    with Slide.open(tmp_path / "a.svs", mpp=0.5, override_mpp=True) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.5, "given")
        assert "says 0.25 um/px (aperio.MPP); 0.5 is used" in slide.warnings[0]
    assert not Slide.open(tmp_path / "a.svs", mpp=0.25, override_mpp=True).warnings
    with pytest.raises(UsageError, match="--override-mpp"):
        Slide.open(tmp_path / "a.svs", override_mpp=True)


@pytest.mark.parametrize("text", ["0,2273", "0.2273", " 2,273e-1 "])
def test_decimal_commas(tmp_path: Path, picture: np.ndarray, text: str) -> None:
    slides.save_svs(tmp_path / "a.svs", picture, mpp=text)
    assert Slide.open(tmp_path / "a.svs").mpp == pytest.approx(0.2273)


def in_aperio(path: Path, text: str, image: np.ndarray) -> None:
    slides.save_svs(path, image, mpp=text)


def in_ome(path: Path, text: str, image: np.ndarray) -> None:
    slides.save_ome(path, image, size=1)
    with tifffile.TiffFile(path) as tif:
        xml = tif.pages[0].description
    number, _, unit = text.partition(" ")
    for axis in "XY":
        xml = xml.replace(f'PhysicalSize{axis}="1"', f'PhysicalSize{axis}="{number}"')
    xml = xml.replace('Unit="µm"', f'Unit="{unit or "µm"}"')
    tiled = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(image, subifds=1, description=xml.encode(), **tiled)
        tif.write(slides.halved(image), subfiletype=1, **tiled)


@pytest.mark.parametrize(
    ("save", "text", "named"),
    [
        (in_aperio, "0", "aperio.MPP = '0'"),
        (in_aperio, "227.3", "aperio.MPP = '227.3'"),
        (in_aperio, "x40", "aperio.MPP = 'x40'"),
        (in_ome, "0", "OME PhysicalSizeX = '0'"),
        (in_ome, "250", "OME PhysicalSizeX = '250'"),
        (in_ome, "0.25 pixel", "OME PhysicalSizeX = '0.25 pixel"),
    ],
)
def test_a_scale_that_is_not_understood_is_named(
    tmp_path: Path,
    picture: np.ndarray,
    save: Callable[[Path, str, np.ndarray], None],
    text: str,
    named: str,
) -> None:
    path = tmp_path / ("a.svs" if save is in_aperio else "a.ome.tif")
    save(path, text, picture)
    with Slide.open(path) as slide:
        assert slide.mpp is None
        with pytest.raises(ScaleError) as caught:
            slide.require_mpp()
    for part in (named, "0.05 to 20", "--mpp"):
        assert part in str(caught.value)
    with Slide.open(path, mpp=0.25) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.25, "given")


def test_decimal_comma_in_ome(tmp_path: Path, picture: np.ndarray) -> None:
    in_ome(tmp_path / "a.ome.tif", "0,2273", picture)
    assert Slide.open(tmp_path / "a.ome.tif").mpp == pytest.approx(0.2273)


@pytest.mark.parametrize(
    ("unit", "per_unit", "mpp"),
    [
        ("um", 4, 0.25),
        ("micron", 4, 0.25),
        ("\\u00B5m", 4, 0.25),
        ("nm", 0.004, 0.25),
        ("mm", 4000, 0.25),
        ("cm", 40000, 0.25),
        ("pixel", 4, None),
        ("inch", 72, None),
        ("furlong", 4, None),
    ],
)
def test_units_of_imagej(
    tmp_path: Path, picture: np.ndarray, unit: str, per_unit: float, mpp: float | None
) -> None:
    resolution = (per_unit, per_unit)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, imagej=True, resolution=resolution, metadata={"unit": unit})
    with Slide.open(path) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
        if unit == "furlong":
            with pytest.raises(ScaleError, match=r"ImageJ unit = '0\.25 x 0\.25 furlong'"):
                slide.require_mpp()


@pytest.mark.parametrize(
    ("unit", "density", "mpp"),
    [
        ("CENTIMETER", (40000, 1), 0.25),
        ("INCH", (101600, 1), 0.25),
        ("MILLIMETER", (4000, 1), 0.25),
        ("MICROMETER", (4, 1), 0.25),
        ("NONE", (4, 1), None),
        ("CENTIMETER", (0, 1), None),
        ("CENTIMETER", (40000, 0), None),
        ("CENTIMETER", (1, 1), None),
    ],
)
def test_units_of_the_resolution_tags(
    tmp_path: Path, picture: np.ndarray, unit: str, density: tuple[int, int], mpp: float | None
) -> None:
    path = tmp_path / "a.tif"
    slides.save_tiff(path, picture, resolution=(1, 1), resolutionunit=unit)
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name in ("XResolution", "YResolution"):
            tif.pages[0].tags[name].overwrite(density)
    assert Slide.open(path).mpp == (None if mpp is None else pytest.approx(mpp))


def test_real_svs_with_a_decimal_comma(cases_dir: Path) -> None:
    assert Slide.open(cases_dir / "svs_decimal_comma" / "comma.svs").mpp == 0.2273


@pytest.mark.parametrize(
    ("physical", "mpp", "warned"),
    [("0.25", 0.25, False), ("0.5", 0.5, True), ("", 0.25, False), ("0.2525", 0.2525, False)],
)
def test_ome_text_and_tags_of_two_scales_are_told(
    tmp_path: Path, picture: np.ndarray, physical: str, mpp: float, warned: bool
) -> None:
    size = f'PhysicalSizeX="{physical}" PhysicalSizeY="{physical}"' if physical else ""
    height, width = picture.shape[:2]
    pixels = f'<Pixels SizeX="{width}" SizeY="{height}" SizeC="1" {size}/>'
    slides.save_tiff(
        tmp_path / "a.ome.tif",
        picture,
        description=f"<OME><Image>{pixels}</Image></OME>",
        resolution=(40_000, 40_000),
        resolutionunit="CENTIMETER",
    )
    with Slide.open(tmp_path / "a.ome.tif") as slide:
        assert (slide.format, slide.mpp) == ("OME-TIFF", pytest.approx(mpp))
        told = ["and 0.25 (TIFF resolution); 0.5 is used" in one for one in slide.warnings]
        assert told == ([True] if warned else [])


@pytest.mark.parametrize(("density", "warned"), [(40_000, False), (20_000, True)])
def test_text_and_tags_of_an_svs_of_two_scales_are_told(
    tmp_path: Path, picture: np.ndarray, density: int, warned: bool
) -> None:
    text = slides.APERIO.format(w=picture.shape[1], h=picture.shape[0])
    options = {"tile": (64, 64), "compression": "jpeg", "description": text}
    options |= {"resolution": (density, density), "resolutionunit": "CENTIMETER"}
    slides.save_tiff(tmp_path / "a.svs", picture, **options)
    with Slide.open(tmp_path / "a.svs") as slide:
        assert (slide.format, slide.mpp) == ("aperio", 0.25)
        told = ["and 0.5 (TIFF resolution); 0.25 is used" in one for one in slide.warnings]
        assert told == ([True] if warned else [])
