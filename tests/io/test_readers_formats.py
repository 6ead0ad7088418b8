"""What each format says beside the points: scale, scanner, patient, votes, masks, boxes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segmitos.cli import main
from segmitos.errors import DataError
from segmitos.io.datasets import left_out, load_dataset
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.write import write_annotations
from tests.factories.dataset_layouts import (
    HALF,
    LAYOUTS,
    MITOSIS,
    OTHER,
    draw,
    midog_content,
    save,
    write,
)

FIELD = draw((96, 64), (70, 21), (30, 47))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def load(layout, folder, **options):
    (case,) = load_dataset(LAYOUTS[layout](folder, FIELD), **options)
    return case


@pytest.mark.parametrize(
    ("layout", "slide", "patient", "mpp", "scanner"),
    [
        ("mitos14", "A03", "03", 0.2455, "Aperio"),
        ("mitos12", "H00", "00", 0.2274, "Hamamatsu"),
        ("mitos12_tiles", "A00", "00", 0.2456, "Aperio"),
        ("tupac16", "01", "01", 0.25, ""),
        ("amida13", "01", "01", 0.25, ""),
        ("sliderunner", "30", "30", 0.25, ""),
        ("midog", "051", "051", 0.2294, "Hamamatsu S360"),
        ("crops", "MIDOG21/002", "MIDOG21/002", 0.25, ""),
        ("points", "s1", "s1", None, ""),
        ("qupath", "s1", "s1", None, ""),
        ("mini_mias", "mdb003", "002", 200.0, ""),
        ("mini_mias_published", "mdb003", "002", 200.0, ""),
        ("cbis_ddsm", "P_00001", "P_00001", None, ""),
    ],
)
def test_slide_patient_scale_and_scanner(tmp_path, layout, slide, patient, mpp, scanner):
    case = load(layout, tmp_path)
    assert (case.slide, case.patient, case.mpp, case.scanner) == (slide, patient, mpp, scanner)
    assert case.centered_crop == (layout == "crops")
    assert load(layout, tmp_path, mpp=0.3, override_mpp=True).mpp == 0.3


def test_confidence_is_the_share_of_pathologists(tmp_path):
    assert load("mitos14", tmp_path).confidence.tolist() == [0.8]


def test_the_two_films_of_a_woman_are_one_patient(tmp_path):
    rows = "".join(f"mdb{n:03d}.png,G,CIRC,B,9,9,4\n" for n in (1, 2, 3, 322))
    header = "file,tissue,abnormality,severity,x_px,y_px,radius_px\n"
    write(tmp_path / "lesions.csv", header + rows)
    cases = load_dataset(f"mini-mias:{tmp_path}")
    assert [case.patient for case in cases] == ["001", "001", "002", "161"]


def test_amida13_is_the_first_23_cases(tmp_path):
    spec = LAYOUTS["tupac16"](tmp_path, FIELD)
    for case in ("23", "24"):
        save(FIELD.pixels, tmp_path / "mitoses_image_data_part_2" / case / "01.tif")
    assert [case.slide for case in load_dataset(spec)] == ["01", "23", "24"]
    amida = load_dataset(spec.replace("tupac16", "amida13"))
    assert [case.slide for case in amida] == ["01", "23"]
    # A field without a table has no mitosis.
    assert [len(case.mitoses_xy) for case in amida] == [1, 0]


@pytest.mark.parametrize("name", ["amida13", "tupac16"])
def test_tables_in_a_folder_that_is_no_case_are_named(tmp_path, name):
    spec = LAYOUTS[name](tmp_path, FIELD)
    save(FIELD.pixels, tmp_path / "mitoses_image_data_part_1" / "\u00b2" / "02.tif")
    (case,) = load_dataset(spec)
    assert case.slide == "01"
    write(tmp_path / "mitoses_ground_truth" / "01_old" / "02.csv", "1,1\n")
    with pytest.raises(
        DataError, match=r"01_old/02\.csv is of no case: '01_old' is not its number"
    ):
        load_dataset(spec)
    problems: list[str] = []
    assert [case.slide for case in load_dataset(spec, problems=problems)] == ["01"]
    assert len(problems) == 1


def test_the_hidden_test_fields_do_not_take_the_training_labels(tmp_path):
    spec = LAYOUTS["tupac16"](tmp_path, FIELD)
    save(FIELD.pixels, tmp_path / "mitoses-test-image-data" / "01" / "02.tif")
    (case,) = load_dataset(spec)
    assert "part_1" in str(case.image)


@pytest.mark.parametrize("layout", ["tupac16", "sliderunner", "midog", "crops", "mini_mias"])
def test_annotations_load_without_their_images(tmp_path, layout):
    spec = LAYOUTS[layout](tmp_path, FIELD)
    whole = load_dataset(spec)[0]
    whole.image.unlink()
    (case,) = load_dataset(spec)
    assert not case.image.exists()
    assert case.mitoses_xy.tolist() == whole.mitoses_xy.tolist()
    assert case.hard_negatives_xy.tolist() == whole.hard_negatives_xy.tolist()


@pytest.mark.parametrize(
    ("file", "tumour", "table", "description", "scanner", "mpp"),
    [
        ("001.tiff", "", "", "MIDOG 2021", "Hamamatsu XR", 0.2263),
        ("050.tiff", "", "", "MIDOG 2022", "Hamamatsu XR", 0.2263),
        ("100.png", "", "", "MIDOG 2022", "Hamamatsu S360", 0.2294),
        ("150.tiff", "human breast cancer", "", "MIDOG++", "Aperio CS2", 0.2533),
        ("300.tiff", "canine lymphosarcoma", "", "MIDOG++", "3D Histech", 0.2483),
        ("300.tiff", "", "", "MIDOG 2022", "", None),
        ("007.tiff", "", "", "our own slides", "", None),
        ("7.png", "", "", "MIDOG 2021", "", None),
        ("\u00b2.png", "", "", "MIDOG 2021", "", None),
        ("007.tiff", "", "7;train;x;Hamammatsu XR", "our own", "Hamamatsu XR", 0.2263),
        ("007.tiff", "", "7;train;mouse;Zeiss", "MIDOG++", "Zeiss", None),
    ],
)
def test_a_midog_image_has_the_scale_of_its_scanner(
    tmp_path, file, tumour, table, description, scanner, mpp
):
    image = {"id": 7, "file_name": file, "width": 96, "height": 64, "tumor_type": tumour}
    content = midog_content(FIELD, images=[image], info={"description": description})
    write(tmp_path / "MIDOG.json", json.dumps(content))
    if table:
        write(tmp_path / "cases.csv", f"Slide;Dataset;Tumor;Scanner\n{table}\n")
    (case,) = load_dataset(f"midog:{tmp_path}")
    assert (case.scanner, case.mpp) == (scanner, mpp)
    assert case.tumour == (tumour or (table.split(";")[2] if table else ""))


def test_labels_of_ones_own_image_say_nothing_of_its_scale(tmp_path):
    save(FIELD.pixels, tmp_path / "012.png")
    found = Annotations(np.array([FIELD.mitosis], float), ("mitosis",), name="012.png")
    write_annotations(tmp_path / "MIDOG.json", found, "midog-labels")
    (case,) = load_dataset(f"midog:{tmp_path}")
    assert case.mitoses_xy.tolist() == [list(FIELD.mitosis)]
    assert (case.scanner, case.mpp) == ("", None)


def test_the_scale_in_a_midog_image_comes_first(tmp_path):
    spec = LAYOUTS["midog"](tmp_path, FIELD)
    pixels = np.repeat(FIELD.pixels[..., None], 3, axis=2)
    Image.fromarray(pixels).save(tmp_path / "images" / "051.tiff", dpi=(25400 / 0.5, 25400 / 0.5))
    (case,) = load_dataset(spec)
    assert case.mpp == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(("mode", "value"), [("L", 1), ("P", 1), ("I;16", 1)])
def test_a_mask_of_zeros_and_ones_is_not_taken_for_an_empty_one(tmp_path, mode, value):
    spec = LAYOUTS["mitos12_tiles"](tmp_path, FIELD)
    filled = (FIELD.pixels == MITOSIS).astype(np.uint8) * value
    picture = Image.fromarray(filled)
    if mode == "P":
        picture = picture.convert("P")
        picture.putpalette([0, 0, 0, 128, 0, 0])
    elif mode == "I;16":
        picture = Image.fromarray(filled.astype(np.uint16))
    picture.save(tmp_path / "masks" / "A00_01_2.png")
    with pytest.raises(
        DataError, match=r"A00_01_2\.png holds nothing brighter than \d+: write 255"
    ):
        load_dataset(spec)
    Image.fromarray(filled == value).save(tmp_path / "masks" / "A00_01_2.png")
    (case,) = load_dataset(spec)
    assert case.mitoses_xy.tolist() == [list(FIELD.mitosis)]


def test_votes_become_confidence(tmp_path):
    content: dict[str, Any] = midog_content(FIELD)
    content["annotations"][0]["labels"] = [2, 2, 1]
    write(tmp_path / "MIDOG.json", json.dumps(content))
    (case,) = load_dataset(f"midog:{tmp_path}")
    assert case.confidence.tolist() == pytest.approx([2 / 3])
    assert load("midog", tmp_path).confidence is None


def test_images_that_midog_leaves_unlabeled_are_told(tmp_path, capsys):
    spec = LAYOUTS["midog"](tmp_path, FIELD)
    table = tmp_path / "MIDOG.json"
    note = f"{table}: images without any annotation are left out as unlabeled: 1 of 2"
    assert left_out([spec, "absent", "nothing:of"]) == [note] == left_out(str(tmp_path))
    assert main(["dataset", "describe", spec]) == 0
    assert f"note             {note}\n" in capsys.readouterr().out
    assert main(["dataset", "describe", spec, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [note]
    assert main(["dataset", "convert", spec, "-o", str(tmp_path / "out")]) == 0
    assert f"warning: {note}\n" in capsys.readouterr().err
    content: dict[str, Any] = midog_content(FIELD)
    write(table, json.dumps({**content, "images": content["images"][:1]}))
    assert left_out(spec) == []


@pytest.mark.slow
def test_every_published_midog_box_says_who_scanned_it(data_dir):
    cases = load_dataset(f"midog:{data_dir / 'annotations' / 'MIDOG++.json'}")
    scanners = {}
    for case in cases:
        scanners[case.scanner] = scanners.get(case.scanner, 0) + 1
        # The regions were chosen as 2 mm2, which checks the scale of every one.
        area_mm2 = case.size_px[0] * case.size_px[1] * (case.mpp / 1000) ** 2
        assert area_mm2 == pytest.approx(2, rel=0.02)
    assert scanners == {
        "Hamamatsu XR": 154,
        "Hamamatsu S360": 50,
        "Aperio CS2": 100,
        "3D Histech": 199,
    }
    assert all(case.confidence is None or (case.confidence > 0.5).all() for case in cases)


def test_a_mask_from_pixel_lists_is_drawn_once_and_never_stale(tmp_path, cache):
    case = load("mitos12", tmp_path)
    assert cache in case.mask.parents
    before = case.mask.stat().st_mtime_ns
    assert load("mitos12", tmp_path).mask.stat().st_mtime_ns == before
    write(tmp_path / "H00_v2" / "H00_01.csv", "5,6\n")
    (changed,) = load_dataset(f"mitos12:{tmp_path}")
    assert changed.mask != case.mask
    assert np.argwhere(np.asarray(Image.open(changed.mask))).tolist() == [[6, 5]]


def test_an_overlay_beside_a_field_is_not_a_field(tmp_path):
    case = load("mitos12", tmp_path)
    assert case.image.suffix == ".bmp" and case.image.with_suffix(".jpg").exists()


def test_malignant_masses_are_foreground(tmp_path):
    case = load("cbis_ddsm", tmp_path)
    assert case.name == "Mass-Training_P_00001_LEFT_CC" and case.size_px == FIELD.size
    assert case.mitoses_xy.tolist() == [[70, 21]]
    assert case.hard_negatives_xy.tolist() == [[30, 47]]
    assert case.radii_px.tolist() == [HALF + 0.5]
    mask = np.asarray(Image.open(case.mask))
    np.testing.assert_array_equal(mask == 255, FIELD.pixels == MITOSIS)


def test_a_mask_of_another_size_is_stretched_to_its_mammogram(tmp_path):
    spec = LAYOUTS["cbis_ddsm"](tmp_path, FIELD)
    series = tmp_path / "Mass-Training_P_00001_LEFT_CC_2" / "2.1" / "2.2"
    twice = np.kron(np.where(FIELD.pixels == OTHER, 255, 0), np.ones((2, 2))).astype(np.uint8)
    save(twice, series / "1-2.png")
    (case,) = load_dataset(spec)
    np.testing.assert_allclose(case.hard_negatives_xy, [[30, 47]], atol=0.5)


def test_mammograms_are_found_in_other_trees(tmp_path):
    spec = LAYOUTS["cbis_ddsm"](tmp_path, FIELD)
    expected = load_dataset(spec)[0].mitoses_xy.tolist()
    # Copies in JPEG keep the folder of the series alone.
    for folder in ("Mass-Training_P_00001_LEFT_CC/1.1/1.2", *_rois()):
        (tmp_path / "jpeg").mkdir(exist_ok=True)
        (tmp_path / folder).rename(tmp_path / "jpeg" / folder.rpartition("/")[2])
    assert load_dataset(spec)[0].mitoses_xy.tolist() == expected
    # TCIA's downloader names folders after dates and series descriptions.
    for number, folder in enumerate(("Mass-Training_P_00001_LEFT_CC/1.1/1.2", *_rois())):
        date = tmp_path / folder.split("/")[0] / "07-20-2016-DDSM-NA-94942"
        date.mkdir(parents=True)
        series = tmp_path / "jpeg" / folder.rpartition("/")[2]
        series.rename(date / f"1.000000-ROI mask images-{number}")
    assert load_dataset(spec)[0].mitoses_xy.tolist() == expected


def _rois():
    return (f"Mass-Training_P_00001_LEFT_CC_{n}/2.1/2.{n}" for n in (1, 2))
