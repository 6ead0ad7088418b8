"""What `dataset describe` counts and finds, what its sheet shows, and conversion to points."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from segmitos.cli import main
from segmitos.errors import DataError, OutputError, ScaleError
from segmitos.io.datasets import Case, load_dataset
from segmitos.io.points.regions import Regions
from segmitos.report.contact_sheet import (
    contact_sheets,
    label_table,
    labeled_points,
    region_sheets,
)
from segmitos.report.dataset_conversion import convert_dataset
from segmitos.report.dataset_report import describe, find_problems
from tests.factories.dataset_layouts import LAYOUTS, MITOSIS, OTHER, draw, save
from tests.factories.points import rectangle

FIELD = draw((96, 64), (70, 21), (30, 47))
NONE = np.zeros((0, 2))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def case(tmp_path):
    image = save(FIELD.pixels, tmp_path / "images" / "a.png")
    mitoses, others = np.array([FIELD.mitosis], float), np.array([FIELD.other], float)
    return Case("a", image, mitoses, others, 0.25, "s", "p", "ours", scanner="Aperio")


def test_counts(case, tmp_path):
    empty = dataclasses.replace(
        case, name="b", slide="t", mitoses_xy=NONE, mpp=None, tumour="melanoma", size_px=(7, 9)
    )
    gone = dataclasses.replace(case, name="c", image=tmp_path / "gone.png", patient="")
    summary = describe([case, empty, gone])
    assert json.loads(json.dumps(summary)) == summary
    assert summary == {
        "datasets": "ours",
        "cases": 3,
        "slides": 2,
        "patients": 2,
        "mitoses": 2,
        "hard_negatives": 3,
        "unsure": 0,
        "reviewed_mm2": None,
        "cases_with_regions": 0,
        "masks": 0,
        "empty_cases": 1,
        "images_missing": 1,
        "mitoses_by_slide": {"s": 2, "t": 0},
        "sizes_px": {"96 x 64": 1, "7 x 9": 1, "unknown": 1},
        "mpp": {"0.25": 2, "unknown": 1},
        "scanners": {"Aperio": 3},
        "laboratories": {"unknown": 3},
        "tumours": {"melanoma": 1},
    }


def test_nothing_is_wrong_with_a_sound_case(case):
    assert find_problems([case]) == []


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"mpp": None}, ["a: um per pixel unknown; give --mpp"]),
        ({"mitoses_xy": np.array([[96.0, 21]])}, ["a: mitosis at (96, 21) is outside 96 x 64 px"]),
        (
            {"hard_negatives_xy": np.array([[5, -1.0]])},
            ["a: hard negative at (5, -1) is outside 96 x 64 px"],
        ),
        # 7.9 px of 0.25 um are within 2 um, 8.1 px are not.
        (
            {"mitoses_xy": np.array([[10, 9], [17.9, 9], [40, 9], [48.1, 9]])},
            ["a: mitosis at (10, 9) and mitosis at (17.9, 9) are within 2 um"],
        ),
        (
            {"hard_negatives_xy": np.array([[71, 22.0], [72, 60]])},
            ["a: mitosis at (70, 21) and hard negative at (71, 22) are within 2 um"],
        ),
        ({"centered_crop": True}, ["a: no mitosis lies in the middle of this crop"]),
        ({"centered_crop": True, "mitoses_xy": np.array([[47.0, 33]])}, []),
    ],
)
def test_what_looks_wrong(case, changes, problems):
    assert find_problems([dataclasses.replace(case, **changes)]) == problems


def test_an_unknown_scale_is_one_problem_however_many_images_lack_it(case):
    cases = [dataclasses.replace(case, name=name, mpp=None) for name in "bc"]
    said = "2 of 3 images, e.g. b: um per pixel unknown; give --mpp"
    assert find_problems([case, *cases]) == [said]


def test_pixels_that_are_not_square_keep_no_point_off_the_image_from_being_found(tmp_path):
    oblong = (10_000 / 0.25, 10_000 / 0.5)
    (tmp_path / "clicks").mkdir()
    image, table = tmp_path / "clicks" / "a.tif", tmp_path / "clicks" / "a.csv"
    tifffile.imwrite(image, FIELD.pixels, resolution=oblong, resolutionunit="CENTIMETER")
    spec = f"points:{tmp_path / 'clicks'}"
    table.write_text("x,y\n70,21\n")
    (case,) = load_dataset(spec, mpp=0.25, override_mpp=True)
    assert case.size_px == (96, 64)
    assert describe([case])["sizes_px"] == {"96 x 64": 1}
    assert load_dataset(spec)[0].mpp is None
    table.write_text("x,y\n700,21\n")
    with pytest.raises(DataError, match="lies outside"):
        load_dataset(spec, mpp=0.25, override_mpp=True)


def test_missing_and_damaged_files(case, tmp_path):
    missing = tmp_path / "gone.png"
    (problem,) = find_problems([dataclasses.replace(case, image=missing)])
    assert problem == f"a: image {missing} is missing"
    (problem,) = find_problems([dataclasses.replace(case, mask=missing)])
    assert problem == f"a: mask {missing} is missing"
    small = save(FIELD.pixels[:9], tmp_path / "small.png")
    (problem,) = find_problems([dataclasses.replace(case, mask=small)])
    assert problem == f"a: mask {small} has 96 x 9 px, the image 96 x 64"
    small.write_text("no picture")
    (problem,) = find_problems([dataclasses.replace(case, mask=small)])
    assert problem == f"a: mask {small} cannot be read"
    case.image.write_bytes(case.image.read_bytes()[:-60])
    (problem,) = find_problems([case])
    assert str(case.image) in problem


def test_annotations_without_any_image_are_one_problem_but_still_checked(case, tmp_path):
    cases = [
        dataclasses.replace(case, name=name, image=tmp_path / f"{name}.tif", size_px=(80, 64))
        for name in "xy"
    ]
    off = dataclasses.replace(cases[1], mitoses_xy=np.array([[90.0, 5]]))
    assert find_problems([cases[0], off]) == [
        f"none of the 2 images is there, e.g. {tmp_path / 'x.tif'}",
        "y: mitosis at (90, 5) is outside 80 x 64 px",
    ]


def contact_sheet(cases):
    (page,) = contact_sheets(labeled_points(cases))
    return page


def cells(png: bytes) -> list[np.ndarray]:
    sheet = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert sheet.shape[0] % 110 == 0 and sheet.shape[1] % 96 == 0
    return [
        sheet[top : top + 96, left : left + 96]
        for top in range(0, sheet.shape[0], 110)
        for left in range(0, sheet.shape[1], 96)
    ]


def test_the_sheet_shows_each_label_in_the_middle_of_its_crop(case):
    mitosis, other = cells(contact_sheet([case]))
    for crop, value in ((mitosis, MITOSIS), (other, OTHER)):
        # The middle of 96 px is between two pixels, so that the square's rim is half as dark.
        assert (crop[45:51, 45:51] == value).all()
        around = 220.0 - crop[40:56, 40:56, 0]
        assert around.sum() == pytest.approx(49 * (220 - value), rel=0.01)
        for axis in (0, 1):
            middle = np.average(np.arange(40, 56), weights=around.sum(axis=1 - axis))
            assert middle == pytest.approx(47.5, abs=0.02)
    assert mitosis[0, 0].tolist() == [0, 160, 64] and other[0, 0].tolist() == [208, 32, 32]


def test_masses_are_shown_whole_and_circled(tmp_path):
    pixels = np.full((300, 400), 60, np.uint8)
    rows, columns = np.mgrid[:300, :400]
    pixels[np.hypot(columns - 250, rows - 120) <= 40] = 240
    image = save(pixels, tmp_path / "mdb001.png")
    mass = Case("m", image, np.array([[250.0, 120]]), NONE, 200.0, "m", radii_px=np.array([40.0]))
    (crop,) = cells(contact_sheet([mass]))
    # The mass takes half of the crop's width.
    assert (crop[48, 28:68] > 200).all() and (crop[48, 4:20] < 80).all()
    assert (np.all(crop == (0, 160, 64), axis=2).sum(axis=1)[2:-2] > 4).any()


def test_a_crop_of_an_unreadable_image_is_gray(case, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    first, second, *_ = cells(contact_sheet([dataclasses.replace(case, image=broken, name="b")]))
    assert (first[4:20, 4:20] == 0xC0).all() and (second[4:20, 4:20] == 0xC0).all()


def test_a_sheet_without_points_or_images_is_refused(case, tmp_path):
    for changes in ({"image": tmp_path / "gone.png"}, {"mitoses_xy": NONE}):
        changed = dataclasses.replace(case, hard_negatives_xy=NONE, **changes)
        with pytest.raises(DataError, match="no labeled point with an image"):
            contact_sheet([changed])


def test_the_pages_show_every_label_numbered_as_in_the_table(case):
    many = np.stack([np.arange(130.0) % 96, np.arange(130.0) % 64], axis=1)
    unsure = dataclasses.replace(case, name="b", mitoses_xy=many, unsure_xy=many[:5])
    points = labeled_points([case, unsure])
    pages = [cells(page) for page in contact_sheets(points)]
    assert [len(page) for page in pages] == [100, 40]
    frames = [tuple(cell[0, 0]) for page in pages for cell in page]
    green, red, orange = (0, 160, 64), (208, 32, 32), (224, 160, 0)
    assert frames[:138] == [green, red, *[green] * 130, red, *[orange] * 5]
    lines = label_table(points).splitlines()
    assert lines[0] == "number,page,case,slide,label,x_px,y_px" and len(lines) == 139
    assert lines[1] == "1,1,a,s,mitosis,70.0,21.0" and lines[138].startswith("138,2,b,s,unsure,")


def test_regions_are_drawn_and_their_area_is_counted(case):
    regions = Regions((rectangle(0, 0, 40, 32),), (rectangle(0, 0, 10, 32),))
    inside = dataclasses.replace(
        case, regions=regions, mitoses_xy=np.array([[20.0, 20.0]]), hard_negatives_xy=NONE
    )
    assert find_problems([inside]) == []
    summary = describe([inside])
    assert summary["reviewed_mm2"] == round(30 * 32 * 0.0625 / 1e6, 4)
    assert summary["cases_with_regions"] == 1
    (page,) = region_sheets([case, inside])
    drawn = np.asarray(Image.open(io.BytesIO(page)).convert("RGB"))
    assert (drawn == (32, 96, 224)).all(axis=2).sum() > 50, "the region's outline is blue"
    outside = dataclasses.replace(inside, mitoses_xy=np.array([[60.0, 20.0]]))
    assert find_problems([outside]) == ["a: 1 mitosis lies outside the reviewed regions, unused"]


def test_describe_lists_every_problem_and_says_so_on_standard_error(tmp_path, capsys):
    for name, text in {"s_a": "x,y\n1,a\n", "s_b": "x\n", "s_c": "x,y\n9,9\n"}.items():
        save(FIELD.pixels, tmp_path / f"{name}.png")
        (tmp_path / f"{name}.csv").write_text(text)
    save(FIELD.pixels, tmp_path / "s_d.png")
    assert main(["dataset", "describe", f"points:{tmp_path}", "--mpp", "0.25", "--json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["cases"] == 1 and len(found["problems"]) == 3
    for problem, name in zip(
        found["problems"], ("s_a.csv, line 2", "s_b.csv", "s_d.png"), strict=True
    ):
        assert name in problem
    assert said.err == "segmitos: 3 problems in the data set\n"


def test_conversion_keeps_unsure_cells_regions_confidence_and_laboratory(case, tmp_path):
    regions = Regions((rectangle(0, 0, 90, 60),), (rectangle(1, 1, 5, 5),), ("core",))
    full = dataclasses.replace(
        case,
        unsure_xy=np.array([[12.5, 40.0]]),
        regions=regions,
        confidence=np.array([2 / 3]),
        laboratory="lab, of letters",
    )
    convert_dataset([full], tmp_path / "to")
    (after,) = load_dataset(f"points:{tmp_path / 'to'}")
    assert after.unsure_xy.tolist() == [[12.5, 40.0]]
    assert after.confidence.tolist() == [2 / 3] and after.laboratory == "lab, of letters"
    assert after.regions.names == ("core",)
    assert after.regions.area_px2(96, 64) == regions.area_px2(96, 64) == 90 * 60 - 25
    again = tmp_path / "again"
    convert_dataset([after], again)
    for file in sorted((tmp_path / "to").rglob("*.*")):
        assert (again / file.relative_to(tmp_path / "to")).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"mini_mias", "mini_mias_published"}))
def test_conversion_to_points_keeps_everything(tmp_path, layout):
    spec = LAYOUTS[layout](tmp_path / "from", FIELD)
    mpp = None if layout not in ("points", "qupath", "cbis_ddsm") else 0.3
    before = [dataclasses.replace(case, radii_px=None) for case in load_dataset(spec, mpp=mpp)]
    assert convert_dataset(before, tmp_path / "to") == 1
    (after,) = load_dataset(f"points:{tmp_path / 'to'}")
    assert after.image.read_bytes() == before[0].image.read_bytes()
    assert after.mitoses_xy.tolist() == before[0].mitoses_xy.tolist()
    assert after.hard_negatives_xy.tolist() == before[0].hard_negatives_xy.tolist()
    assert after.mpp == before[0].mpp
    assert after.slide == before[0].slide.replace("/", "_")
    if before[0].patient != before[0].slide:
        assert after.patient == before[0].patient
    assert find_problems([after]) == [] and not list((tmp_path / "to").rglob(".*"))


def test_a_conversion_says_what_it_cannot_write(tmp_path, capsys):
    for layout, told in (
        ("mitos12_tiles", "1 image with pixel masks, which are not written"),
        ("crops", "1 image cut round a mitosis, which is not written"),
        ("mitos14", ""),
    ):
        spec = LAYOUTS[layout](tmp_path / layout, FIELD)
        assert main(["dataset", "convert", spec, "-o", str(tmp_path / f"to-{layout}")]) == 0
        said = capsys.readouterr().err
        assert told in said and said.count("\n") == bool(told)
    scale = ["--mpp", "0.5", "--override-mpp"]
    assert main(["dataset", "convert", spec, *scale, "-o", str(tmp_path / "scaled")]) == 0
    assert "1 image with the scale of --override-mpp: a scale that" in capsys.readouterr().err


def test_fractions_of_a_pixel_survive_conversion(case, tmp_path):
    exact = np.array([[1 / 3, 20.1], [0.1 + 0.2, 1e-7]])
    convert_dataset([dataclasses.replace(case, mitoses_xy=exact)], tmp_path / "to")
    (after,) = load_dataset(f"points:{tmp_path / 'to'}")
    assert after.mitoses_xy.tolist() == exact.tolist()


def test_slides_of_several_scales_are_converted_together(case, tmp_path):
    other = dataclasses.replace(case, slide="t", mpp=0.5)
    convert_dataset([case, other], tmp_path / "to")
    found = load_dataset(f"points:{tmp_path / 'to'}")
    assert [(after.slide, after.mpp) for after in found] == [("s", 0.25), ("t", 0.5)]


def test_two_scans_of_a_patient_stay_together_in_a_conversion(case, tmp_path):
    scans = [dataclasses.replace(case, slide=slide, patient="03") for slide in ("A03", "H03")]
    convert_dataset(scans, tmp_path / "to")
    found = load_dataset(f"points:{tmp_path / 'to'}")
    assert [(after.slide, after.patient) for after in found] == [("A03", "03"), ("H03", "03")]
    other = dataclasses.replace(case, slide="B03", patient="03", dataset="theirs")
    convert_dataset([*scans, other], tmp_path / "both")
    found = load_dataset(f"points:{tmp_path / 'both'}")
    assert [after.patient for after in found] == ["ours/03", "theirs/03", "ours/03"]


def test_conversions_that_would_lose_something_are_refused(case, tmp_path):
    out = tmp_path / "to"
    with pytest.raises(ScaleError, match=r"slide s differ in scale \(0.25 and 0.5 um/px\)"):
        convert_dataset([case, dataclasses.replace(case, name="b", mpp=0.5)], out)
    with pytest.raises(DataError, match="would both become"):
        convert_dataset([case, dataclasses.replace(case)], out)
    with pytest.raises(DataError, match="their radii cannot be written"):
        convert_dataset([dataclasses.replace(case, radii_px=np.array([4.0]))], out)
    with pytest.raises(DataError, match=r"cannot read .*gone\.png"):
        convert_dataset([dataclasses.replace(case, image=tmp_path / "gone.png")], out)
    out.mkdir(exist_ok=True)
    blocked = out / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="cannot write"):
        convert_dataset([case], blocked)


def test_the_real_slides_have_no_problem(data_dir):
    cases = load_dataset(f"mitos14:{data_dir / 'mitos-atypia-14'}", cases=["H12"])
    assert find_problems(cases) == []
    (summary, sheet) = describe(cases), cells(contact_sheet(cases))
    assert summary["mitoses"] == 2 and summary["scanners"] == {"Hamamatsu": len(cases)}
    # Dark nuclei lie in the middle of both, paler tissue round them.
    for crop in sheet[:2]:
        assert crop[40:56, 40:56].mean() < 0.8 * crop[4:-4, 4:-4].mean()


def test_a_conversion_writes_neither_into_its_source_nor_over_other_images(case, tmp_path):
    with pytest.raises(OutputError, match="which is to be converted"):
        convert_dataset([case], tmp_path)
    convert_dataset([case], tmp_path / "to")
    convert_dataset([case], tmp_path / "to")
    save(FIELD.pixels[::-1], tmp_path / "to" / "s" / "a.png")
    with pytest.raises(OutputError, match="is there already and another image"):
        convert_dataset([case], tmp_path / "to")


def test_a_sheet_without_labels_is_a_problem_among_others(tmp_path, capsys):
    save(FIELD.pixels, tmp_path / "s_a.png")
    (tmp_path / "s_a.csv").write_text("x,y\n")
    sheet = tmp_path / "sheet.png"
    arguments = ["dataset", "describe", f"points:{tmp_path}", "--sheet", str(sheet)]
    assert main([*arguments, "--mpp", "0.25"]) == 1
    assert "no labeled point with an image to show" in capsys.readouterr().out
